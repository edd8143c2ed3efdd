"""A benchmark for people: tables, and one HTML page.

All read the plain dict that is written as report.json, and nothing else.
"""

from isthmus.report.benchmark.benchmark_page import benchmark_page
from isthmus.report.benchmark.benchmark_tables import (
    cost_table,
    quality_table,
    spread_table,
    whole_table,
)

__all__ = ["benchmark_page", "cost_table", "quality_table", "spread_table", "whole_table"]
