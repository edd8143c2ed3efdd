"""CSV: what texts spell, how a file is written, and how its columns are read."""
