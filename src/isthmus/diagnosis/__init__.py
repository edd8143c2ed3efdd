"""The diagnosis: who gains from training together, who loses, because of whom, and what to do."""

from isthmus.diagnosis.abstract_study import DiagnosisPlan
from isthmus.diagnosis.command import diagnose, plan_diagnosis, processes
from isthmus.diagnosis.finished import Diagnosis
from isthmus.diagnosis.learners.learner import DomainRows, Learner
from isthmus.diagnosis.learners.row_metrics import RowMean

__all__ = [
    "Diagnosis",
    "DiagnosisPlan",
    "DomainRows",
    "Learner",
    "RowMean",
    "diagnose",
    "plan_diagnosis",
    "processes",
]
