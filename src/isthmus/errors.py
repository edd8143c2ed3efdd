"""The faults that this package names. Wrong arguments of a call stay ``ValueError``.

The text of a fault is one line and safe to print. Names and values of the data are escaped, so that
they do nothing to a terminal.
"""

from isthmus.printable import printable


class IsthmusError(Exception):
    """Parent of every fault of data, files and settings that isthmus reports by name."""

    def __str__(self) -> str:
        return printable(super().__str__())


class SchemaError(IsthmusError):
    """A table does not hold what the config says. The text names file, column, row and value."""


class ConfigError(IsthmusError):
    """A config cannot be accepted: an unknown key, a value out of range, keys that clash.

    The text has one line for each complaint.
    """

    def __str__(self) -> str:
        return printable(Exception.__str__(self), keep="\n")


class BundleError(IsthmusError):
    """A bundle, cache or checkpoint is damaged, of another version, or cannot do what is asked."""


class RunError(IsthmusError):
    """A run folder cannot be used as asked: it exists, is incomplete, or does not match."""
