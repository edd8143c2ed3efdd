"""Encoded train rows counted by fold: what is written out of fold, and what validation confirms."""
