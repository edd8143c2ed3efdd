"""Scored tables: how a table is written out with its scores, as Parquet or CSV."""
