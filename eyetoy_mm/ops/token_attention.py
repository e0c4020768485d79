"""Attention of the global mechanism: a few tokens see everything, a spatial position sees itself and the tokens.

For ``R`` tokens and ``N`` positions this is ``O(N * R)`` in time and memory; there is no ``N x N`` tensor. It equals
attention over the ``R + N`` sequence under :func:`token_attention_mask`, which is the definition (seed 001, section
4.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_attention_mask(num_tokens: int, length: int, device: torch.device | str | None = None) -> Tensor:
    """The definition, as a boolean ``(length, length)`` matrix (True: row attends to column); tokens come first.

    Args:
        num_tokens: Number of register and context tokens.
        length: Tokens plus spatial positions.
        device: Device of the mask.
    """
    index = torch.arange(length, device=device)
    is_token = index < num_tokens
    return is_token[:, None] | is_token[None, :] | (index[:, None] == index[None, :])


def token_attention(query: Tensor, key: Tensor, value: Tensor, num_tokens: int, scale: float | None = None) -> Tensor:
    """Tokens attend to all, a spatial position attends to itself and to the tokens.

    Args:
        query: ``(B, num_tokens + N, heads, head_dim)``, tokens first, then the positions of a map of any rank.
        key: Same shape.
        value: Same shape.
        num_tokens: Number of leading tokens, at least 0. With none, every position attends to itself alone.
        scale: Factor on ``query @ key``; ``head_dim ** -0.5`` when None.

    Returns:
        Tensor of the shape of ``query``.

    Raises:
        ValueError: Shapes that differ, or a number of tokens that the sequence does not have.
    """
    if query.dim() != 4 or key.shape != query.shape or value.shape != query.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"query, key and value must have one shape (B, length, heads, head_dim), got {shapes}")
    if not 0 <= num_tokens <= query.shape[1]:
        raise ValueError(f"num_tokens must be between 0 and the length {query.shape[1]}, got {num_tokens}")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (B, heads, length, dim)
    tokens = F.scaled_dot_product_attention(q[:, :, :num_tokens], k, v, scale=scale)

    q, k_self, v_self = (x[:, :, num_tokens:] for x in (q, k, v))
    k_tokens, v_tokens = k[:, :, :num_tokens], v[:, :, :num_tokens]
    self_score = (q * k_self).sum(-1, keepdim=True) * scale  # (B, heads, N, 1)
    token_scores = q @ k_tokens.transpose(-2, -1) * scale  # (B, heads, N, tokens)
    weights = torch.cat([self_score, token_scores], dim=-1).softmax(dim=-1)
    spatial = weights[..., :1] * v_self + weights[..., 1:] @ v_tokens
    return torch.cat([tokens, spatial.to(tokens.dtype)], dim=2).transpose(1, 2)
