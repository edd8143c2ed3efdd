"""What the embedded row learns beside tables."""

from isthmus.layers.inputs.attention import TargetAttention

__all__ = ["TargetAttention"]
