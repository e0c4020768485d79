"""Pure functions on tensors ``(B, *spatial, heads, dim)``: neighborhood attention, attention of the global tokens."""

from eyetoy_mm.ops.attention import BACKENDS, available_backends, neighborhood_attention
from eyetoy_mm.ops.selection import use_backend
from eyetoy_mm.ops.token_attention import create_attention_mask, token_attention

__all__ = [
    "BACKENDS",
    "available_backends",
    "create_attention_mask",
    "neighborhood_attention",
    "token_attention",
    "use_backend",
]
