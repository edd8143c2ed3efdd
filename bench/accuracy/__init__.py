"""docs/accuracy.md: what ``init`` writes, against what a user would pick instead. ``make accuracy``."""
