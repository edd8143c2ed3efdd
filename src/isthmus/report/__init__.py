"""Results as text: a terminal table, Markdown, JSON."""

from isthmus.report.json_text import to_json
from isthmus.report.markdown import to_markdown
from isthmus.report.side_by_side import side_by_side
from isthmus.report.terminal import to_rich

__all__ = ["side_by_side", "to_json", "to_markdown", "to_rich"]
