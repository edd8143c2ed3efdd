"""The guard: which trained model serves each domain, and what that choice gained and cost."""
