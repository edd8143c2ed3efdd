"""A run for people: one HTML page, and the page's charts as files.

Both read the plain dict that is written as the run's ``report.json``, and nothing else.
"""

from isthmus.report.fitted.fitted_figures import write_run_figures
from isthmus.report.fitted.fitted_page import fitted_page

__all__ = ["fitted_page", "write_run_figures"]
