"""Many runs as one table: the page that ``isthmus view`` serves, and what a page says of a fault."""

from isthmus.report.runs_table.run_row import FoundPage, RunRow
from isthmus.report.runs_table.runs_table_page import fault_page, page_list, row_texts, runs_page

__all__ = ["FoundPage", "RunRow", "fault_page", "page_list", "row_texts", "runs_page"]
