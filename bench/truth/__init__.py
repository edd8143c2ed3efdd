"""docs/truth.md: what the diagnosis says of data whose truth is known. ``make truth``."""
