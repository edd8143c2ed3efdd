"""A study for people: a table of its trials, and one HTML page.

Both read the plain dict that is written as trials.json, and nothing else.
"""

from isthmus.report.tuning.trial_table import trial_table
from isthmus.report.tuning.tuning_page import tuning_page

__all__ = ["trial_table", "tuning_page"]
