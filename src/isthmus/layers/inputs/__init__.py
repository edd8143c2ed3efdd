"""What reads a batch beside the embedding of its features: a wide part, embeddings of numbers."""
