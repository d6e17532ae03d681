"""An explained ranking, as text and as a page."""

from reports.explanation.lines import lines_of
from reports.explanation.site import page_of, write_page

__all__ = ["lines_of", "page_of", "write_page"]
