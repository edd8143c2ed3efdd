"""One more domain for a run that is live, without touching the others."""

from isthmus.extending.extension import Extended, extend

__all__ = ["Extended", "extend"]
