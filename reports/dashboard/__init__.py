"""What an autoencoder has learnt, as a page for people."""

from reports.dashboard.overview import curve_names
from reports.dashboard.site import refuse_other_content, write_site
from reports.dashboard.subject import SpokenFor, Subject

__all__ = ["SpokenFor", "Subject", "curve_names", "refuse_other_content", "write_site"]
