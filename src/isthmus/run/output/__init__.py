"""Tables written out with their scores, as Parquet or CSV."""
