"""What reads a batch beside tables of embeddings: attention, embeddings of numbers, a wide part."""

from isthmus.layers.inputs.attention import TargetAttention
from isthmus.layers.inputs.numbers import NumberEmbeddings
from isthmus.layers.inputs.wide import Wide

__all__ = ["NumberEmbeddings", "TargetAttention", "Wide"]
