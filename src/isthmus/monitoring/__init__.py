"""After shipping: do served rows still look as in training, and what became of their scores?"""

from isthmus.monitoring.drift import DriftWatch
from isthmus.monitoring.flagging import Drift
from isthmus.monitoring.health import Monitoring
from isthmus.monitoring.logged_rows import LoggedRows, read_score_log
from isthmus.monitoring.monitor import monitor
from isthmus.monitoring.score_log import ScoreLog

__all__ = [
    "Drift",
    "DriftWatch",
    "LoggedRows",
    "Monitoring",
    "ScoreLog",
    "monitor",
    "read_score_log",
]
