"""FLOPs of our models as mmengine counts them: ``get_model_complexity_info``, and the toolboxes' tools that call it.

``mmengine.analysis`` traces a model and adds up the nodes that it has a formula for. In a traced graph our operator is
plain operators on tiles, which compute more than the neighborhoods have. Importing this file makes it a single node in
the graphs that mmengine traces, and gives mmengine the formula: a multiply-add of every query with every key of its
window for the scores, and another one for the output.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmengine.analysis import complexity_analysis, jit_analysis

from eyetoy_mm.ops.flops import counting, multiply_adds


def neighborhood_attention_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a node ``eyetoy_mm::neighborhood_attention``.

    Args:
        inputs: Values of the graph, the operator's arguments.
        outputs: Its output.
    """
    query, _, value, _, *sizes, _ = inputs
    kernel_size, dilation = ([number.toIValue() for number in x.node().inputs()] for x in sizes)
    return sum(multiply_adds(x.type().sizes(), kernel_size, dilation) for x in (query, value))


def _traced_for_counting(trace: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(trace)
    def run(*args: Any, **kwargs: Any) -> Any:
        with counting():
            return trace(*args, **kwargs)

    return run


# mmengine has no public way to add a formula for `get_model_complexity_info`, nor to trace in another way.
_NODE = "eyetoy_mm::neighborhood_attention"
complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS[_NODE] = neighborhood_attention_handle
complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS[_NODE] = complexity_analysis.generic_activation_jit()
jit_analysis._get_scoped_trace_graph = _traced_for_counting(jit_analysis._get_scoped_trace_graph)
