"""What both uses of ``flex_attention`` need: a mask from the pairs that attend alone, and a kernel for each case."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # batch, head, query, key: whether it attends


BLOCK = 128  # positions of a block of a mask, as create_block_mask has them


def make_block_mask(mask_mod: MaskMod, length: int, device: torch.device) -> BlockMask:
    """The mask of a sequence that attends to itself, one for all samples and heads, asked for each of its pairs."""
    # compiled, it never holds the whole (N, N) mask
    create = torch.compile(create_block_mask) if device.type == "cuda" else create_block_mask
    return create(mask_mod, None, None, length, length, device=device)


def block_mask_of(pairs: Tensor, mask_mod: MaskMod, length: int) -> BlockMask:
    """The same mask from ``(blocks, blocks)``: how many pairs of a query and a key attend in each pair of blocks."""
    full, some = pairs == BLOCK**2, pairs > 0  # a last block that is not whole is never full: its rest is no position
    return BlockMask.from_kv_blocks(
        *_counted(some & ~full), *_counted(full), BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(length, length)
    )


def _counted(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and their numbers, before those that it has not."""
    numbers = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], numbers.to(torch.int32)[None, None]


def compile_for_case(function: Callable[..., Tensor], *case: Hashable, dynamic: bool = False) -> Callable[..., Tensor]:
    """Compile a function for one case; ``dynamic`` for all sizes of its tensors.

    The compiler counts recompilations per code object and, after a few, runs the function uncompiled, which holds all
    scores. A code object of its own gives each case a count of its own; ``fullgraph`` turns silence into an error.
    """
    code = function.__code__.replace(co_name=f"{function.__name__}_{abs(hash(case))}")
    copy = types.FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)
    return torch.compile(copy, dynamic=dynamic, fullgraph=True)
