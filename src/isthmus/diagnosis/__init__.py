"""The diagnosis: who gains from training together, who loses, because of whom, and what to do."""

from isthmus.diagnosis.command import Diagnosis, diagnose, plan_diagnosis, processes
from isthmus.diagnosis.study import Plan

__all__ = ["Diagnosis", "Plan", "diagnose", "plan_diagnosis", "processes"]
