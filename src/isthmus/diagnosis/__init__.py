"""The diagnosis: who gains from training together, who loses, because of whom, and what to do."""

from isthmus.diagnosis.command import Diagnosis, diagnose, plan_diagnosis, processes
from isthmus.diagnosis.study import DiagnosisPlan

__all__ = ["Diagnosis", "DiagnosisPlan", "diagnose", "plan_diagnosis", "processes"]
