"""Runs beside each other: what differs in their scores, their settings and their costs."""

from isthmus.run.comparing.compared_runs import ComparedRuns, compare_runs

__all__ = ["ComparedRuns", "compare_runs"]
