"""The version of this package, the one place that says it; runs and bundles record it."""

VERSION = "0.1.0"
