"""A diagnosis for people: one HTML page, Markdown, plain text, and figures for papers.

All of them read the plain dict that is written as report.json, and nothing else.
"""

from isthmus.report.diagnosis.figures import write_figures
from isthmus.report.diagnosis.page import page
from isthmus.report.diagnosis.prose import to_markdown, to_terminal
from isthmus.report.diagnosis.text_tables import verdict_table

__all__ = ["page", "to_markdown", "to_terminal", "verdict_table", "write_figures"]
