"""The bundle: the folder that is shipped, and all that turns a raw row into its score."""

from isthmus.bundle.detector import DetectBy, Detector, check_detector, fit_detector
from isthmus.bundle.manifest import MANIFEST, is_bundle, read_manifest
from isthmus.bundle.parts import Part
from isthmus.bundle.served import Bundle, ScoredBlock, to_score

__all__ = [
    "MANIFEST",
    "Bundle",
    "DetectBy",
    "Detector",
    "Part",
    "ScoredBlock",
    "check_detector",
    "fit_detector",
    "is_bundle",
    "read_manifest",
    "to_score",
]
