"""Results as text: a terminal table, Markdown, LaTeX, CSV, JSON."""

from isthmus.report.csv_text import to_csv
from isthmus.report.json_text import to_json
from isthmus.report.latex import to_latex
from isthmus.report.markdown import to_markdown
from isthmus.report.side_by_side import side_by_side
from isthmus.report.terminal import to_rich

__all__ = ["side_by_side", "to_csv", "to_json", "to_latex", "to_markdown", "to_rich"]
