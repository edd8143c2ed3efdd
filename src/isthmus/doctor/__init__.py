"""What is installed, what of it works, what this machine has, and what is wrong with each."""

from isthmus.doctor.examination import Examination, Finding, examine

__all__ = ["Examination", "Finding", "examine"]
