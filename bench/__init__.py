"""The numbers that this package promises, measured: ``python -m bench``."""
