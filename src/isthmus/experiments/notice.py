"""What the engine tells while it works."""

from collections.abc import Callable

from isthmus.experiments.training import Training

Tell = Callable[[str, int, int, Training], None]
"""``tell(what, done, of, training)`` after each training."""


def silent(what: str, done: int, of: int, training: Training) -> None:
    """Tell nothing."""
    del what, done, of, training
