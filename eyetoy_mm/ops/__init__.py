"""Pure functions on tensors ``(B, *spatial, heads, dim)``: neighborhood attention, attention of the global tokens."""

from eyetoy_mm.ops.attention import BACKENDS, available_backends, neighborhood_attention
from eyetoy_mm.ops.token_attention import token_attention, token_attention_mask

__all__ = ["BACKENDS", "available_backends", "neighborhood_attention", "token_attention", "token_attention_mask"]
