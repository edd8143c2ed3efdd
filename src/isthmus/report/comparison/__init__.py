"""Compared runs for people: one HTML page.

The page reads the plain dict that ``isthmus compare --json`` writes, and nothing else.
"""

from isthmus.report.comparison.comparison_page import comparison_page

__all__ = ["comparison_page"]
