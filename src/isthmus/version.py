"""The version of this package, as pyproject.toml says it; runs and bundles record it."""

VERSION = "0.1.0"
