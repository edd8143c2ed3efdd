"""Numbers: how they are scaled, and where the bins of their embeddings lie."""
