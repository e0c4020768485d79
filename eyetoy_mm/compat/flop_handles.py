"""Trap: mmengine's FLOP counter passes over what today's PyTorch traces.

What breaks: `mmengine.analysis`, which is `get_model_complexity_info` and the toolboxes' `get_flops.py`, traces a model
and adds up the nodes that it has a formula for. mmengine 0.10.7 has none for `scaled_dot_product_attention`, which
mmpretrain calls where torch has it (>= 2.0): DeiT-S gets 4.25 G instead of the 4.61 G of its metafile. Nor has it one
for convolutions whose padding is `"same"` or `"valid"`, which are another node than those with a number.

What we do: both get a formula in its default tables, in its convention, where a multiply-add is one FLOP. A formula
that is there already stays.

Delete this file when the supported mmengine counts both.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Adds the formulas when `mmengine.analysis` is imported."""
    if needed():
        after_import("mmengine.analysis.complexity_analysis", _add)


def _add(analysis: ModuleType) -> None:
    handles = {
        "aten::scaled_dot_product_attention": _scaled_dot_product_attention,
        "aten::_convolution_mode": _convolution_mode,
    }
    for node, handle in handles.items():
        analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(node, handle)
        analysis._DEFAULT_SUPPORTED_ACT_OPS.setdefault(node, analysis.generic_activation_jit())


# Inputs and outputs are values of a torch.jit graph.


def _scaled_dot_product_attention(inputs: list[Any], outputs: list[Any]) -> int:
    (*batch, queries, dim), (*_, keys, _), (*_, value_dim) = (x.type().sizes() for x in inputs[:3])
    return math.prod(batch) * queries * keys * (dim + value_dim)


def _convolution_mode(inputs: list[Any], outputs: list[Any]) -> int:
    weight, output = inputs[1].type().sizes(), outputs[0].type().sizes()
    return math.prod(weight[1:]) * math.prod(output)  # (C_out, C_in / groups, *kernel), (B, C_out, *spatial)
