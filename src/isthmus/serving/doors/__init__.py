"""The dialects in which rows come and scores go."""
