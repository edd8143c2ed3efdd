"""Encoded rows on disk: built once, memory-mapped, read by split, by shard and in batches."""
