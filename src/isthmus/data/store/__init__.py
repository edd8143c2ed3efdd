"""Encoded rows on disk: built once, memory-mapped, read by split and in batches."""
