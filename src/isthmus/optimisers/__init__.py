"""Adam for the dense parameters of a model and, dense or lazy, for its embedding tables."""

from isthmus.optimisers.adam import (
    BETAS,
    EPS,
    EmbeddingUpdate,
    LazyAdam,
    ModelOptimiser,
    build_optimiser,
    clip_gradients,
    resolve_embedding_update,
)
from isthmus.optimisers.row_gradients import padded_rows, summed_rows

__all__ = [
    "BETAS",
    "EPS",
    "EmbeddingUpdate",
    "LazyAdam",
    "ModelOptimiser",
    "build_optimiser",
    "clip_gradients",
    "padded_rows",
    "resolve_embedding_update",
    "summed_rows",
]
