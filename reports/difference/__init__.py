"""What fine-tuning changed in an embedding model, as one page and as a short table."""

from reports.difference.report import page_of, write_page
from reports.difference.subject import Subject
from reports.difference.table import table_of

__all__ = ["Subject", "page_of", "table_of", "write_page"]
