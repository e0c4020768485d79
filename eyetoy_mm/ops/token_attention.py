"""Attention of the global mechanism: a few tokens see everything, a spatial position sees itself and the tokens.

It has two equal forms. ``split`` runs everywhere: for ``R`` tokens and ``N`` positions it takes ``O(N * R)`` time and
memory, there is no ``N x N`` tensor. ``flex`` is ``flex_attention`` under :func:`create_attention_mask`, whose mask
is the definition (docs/architecture.md, equations 13 and 14).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from eyetoy_mm.ops.attention import checked_scale
from eyetoy_mm.ops.caching import cached_tensors
from eyetoy_mm.ops.flex import BLOCK, block_mask_of, compile_for_case, make_block_mask
from eyetoy_mm.ops.flops import is_counting


@cached_tensors(maxsize=64)
def create_attention_mask(num_tokens: int, seq_len: int, device: torch.device | str = "cpu") -> BlockMask:
    """The definition, as ``flex_attention`` asks for it; tokens come first.

    Args:
        num_tokens: Number of register and context tokens.
        seq_len: Tokens plus spatial positions.
        device: Device of the mask.

    Returns:
        Mask ``(1, 1, seq_len, seq_len)``, for any batch and number of heads. It is kept and given again.
    """

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query < num_tokens) | (key < num_tokens) | (query == key)

    if torch.compiler.is_compiling():  # the length may be a symbol there
        return make_block_mask(attends, seq_len, torch.device(device))
    first = torch.arange(0, seq_len, BLOCK, device=device)
    positions = (seq_len - first).clamp(max=BLOCK)  # of each block, and the tokens among them
    tokens = (num_tokens - first).clamp(min=0).minimum(positions)
    pairs = tokens[:, None] * positions + (positions - tokens)[:, None] * tokens
    return block_mask_of(pairs + (positions - tokens).diag(), attends, seq_len)


def token_attention(
    query: Tensor, key: Tensor, value: Tensor, num_tokens: int, scale: float | None = None, form: str = "split"
) -> Tensor:
    """Tokens attend to all, a spatial position attends to itself and to the tokens.

    Args:
        query: ``(B, num_tokens + N, heads, head_dim)``, tokens first, then the positions of a map of any rank.
        key: Same shape.
        value: Same shape.
        num_tokens: Number of leading tokens, at least 0. With none, every position attends to itself alone.
        scale: Factor on ``query @ key``; ``head_dim ** -0.5`` when None.
        form: ``"split"``, or ``"flex"`` for ``flex_attention``: compiled on CUDA; on a CPU uncompiled, with all
            ``(num_tokens + N) ** 2`` scores in memory and without gradients.

    Returns:
        Tensor of the shape of ``query``.

    Raises:
        ValueError: Shapes that differ, a number of tokens that the sequence does not have, a scale that is no finite
            number, or an unknown form.
        NotImplementedError: ``form="flex"`` on a CPU with inputs that require gradients.
    """
    if query.dim() != 4 or key.shape != query.shape or value.shape != query.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"query, key and value must have one shape (B, length, heads, head_dim), got {shapes}")
    if not 0 <= num_tokens <= query.shape[1]:
        raise ValueError(f"num_tokens must be between 0 and the length {query.shape[1]}, got {num_tokens}")
    if form not in ("split", "flex"):
        raise ValueError(f"form must be 'split' or 'flex', got {form!r}")
    scale = query.shape[-1] ** -0.5 if scale is None else checked_scale(scale)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (B, heads, length, dim)
    if form == "split" or query.numel() == 0 or is_counting():  # flex_attention does not take empty sequences
        return _split(q, k, v, num_tokens, scale).transpose(1, 2)
    attention = _compiled(num_tokens, q.shape[2]) if q.is_cuda else _flex
    mask = create_attention_mask(num_tokens, q.shape[2], q.device)
    return attention(q, k, v, mask, scale).transpose(1, 2)


def _split(q: Tensor, k: Tensor, v: Tensor, num_tokens: int, scale: float) -> Tensor:
    """Tokens x all, and positions x (self + tokens); all ``(B, heads, length, dim)``.

    In plain operators: the fused ones of PyTorch have no second derivative, nor one in forward mode.
    """
    q = q * scale  # before the products, which float16 can overflow in
    tokens = (q[:, :, :num_tokens] @ k.transpose(-2, -1)).softmax(dim=-1) @ v

    q, k_self, v_self = (x[:, :, num_tokens:] for x in (q, k, v))
    k_tokens, v_tokens = k[:, :, :num_tokens], v[:, :, :num_tokens]
    self_score = (q * k_self).sum(-1, keepdim=True)  # (B, heads, N, 1)
    token_scores = q @ k_tokens.transpose(-2, -1)  # (B, heads, N, tokens)
    weights = torch.cat([self_score, token_scores], dim=-1).softmax(dim=-1)
    spatial = weights[..., :1] * v_self + weights[..., 1:] @ v_tokens
    return torch.cat([tokens, spatial.to(tokens.dtype)], dim=2)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float) -> Tensor:
    return cast(Tensor, flex_attention(q, k, v, block_mask=mask, scale=scale))


@functools.lru_cache(maxsize=64)
def _compiled(num_tokens: int, seq_len: int) -> Callable[..., Tensor]:
    return compile_for_case(_flex, "tokens", num_tokens, seq_len)
