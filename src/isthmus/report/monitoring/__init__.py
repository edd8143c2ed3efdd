"""What labels say of served scores, for people: one HTML page.

It reads the plain dict that ``isthmus monitor --json`` writes, and nothing else.
"""

from isthmus.report.monitoring.monitoring_page import monitoring_page

__all__ = ["monitoring_page"]
