"""From a PyTorch module to an ONNX graph for images of any size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx_ir.passes.common import NameFixPass
from torch import nn

from eyetoy_mm.errors import UserError
from eyetoy_mm.export.operator import OPSET, neighborhood_attention, neighborhood_attention_node
from eyetoy_mm.export.runtimes import INPUT
from eyetoy_mm.export.tracing import quiet, trace

TRANSLATIONS = {"plain": neighborhood_attention, "eyetoy": neighborhood_attention_node}
AXES = {0: "batch", 2: "height", 3: "width"}
# The size of the example. A length of 1 would be taken for a constant: RetinaNet's coarsest map has stride 128.
TRACED = (320, 448)


def build_graph(
    module: nn.Module,
    outputs: Sequence[str],
    any_batch: bool = True,
    kernels: str = "plain",
    size: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """Export a module ``images (B, 3, H, W) -> tuple of tensors`` with open height, width and batch.

    Args:
        module: In evaluation mode; neighborhood attention is translated, everything else is PyTorch's own export.
        outputs: Names of the outputs.
        any_batch: Whether the batch is open; else it is 1.
        kernels: ``"plain"`` for standard operators, ``"eyetoy"`` for one node a call of our operator.
        size: Height and width, where these are not open.

    Returns:
        The graph, without the strings that PyTorch leaves in it: they are many, and tell paths of this machine.

    Raises:
        UserError: PyTorch cannot export the module.
    """
    is_open = {0: any_batch, 2: size is None, 3: size is None}
    open_axes = {axis: torch.export.Dim.DYNAMIC for axis in AXES if is_open[axis]}
    try:
        program = trace(module, size or TRACED, open_axes)
        with torch.no_grad(), quiet(), without_slow_rules():
            graph = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                custom_translation_table={
                    torch.ops.eyetoy_mm.neighborhood_attention.default: TRANSLATIONS[kernels],
                },
            )
    except Exception as error:  # of whatever kind the part of PyTorch raises that does not know an operation
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        what, remedy = "images of this size", ""
        if size is None:
            what, remedy = "any image size", "--size H,W may, for one, and "
        raise UserError(
            f"PyTorch cannot export this model for {what}: {type(error).__name__}: {lines[-1] if lines else ''}; "
            f"{remedy}--part backbone exports its backbone"
        ) from error
    assert graph is not None
    NameFixPass()(graph.model)  # values within a scan have the names of others
    proto = graph.model_proto
    strip(proto)
    _name_axes(proto)
    return proto


@contextmanager
def without_slow_rules() -> Iterator[None]:
    """Without the rule of onnxscript's optimizer that looks at all nodes for each, minutes in a graph of thousands.

    It makes a Split of two Slices, which do as well.
    """
    from onnxscript.rewriter.rules import common

    rule: Any = getattr(common, "slice_split_rule", None)
    if rule is None:
        yield
        return
    rule.try_rewrite = lambda *_, **__: None
    try:
        yield
    finally:
        del rule.try_rewrite


def fix_size(proto: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Leave height and width open no longer, in place; a runtime computes the index tables once then."""
    fixed = dict(zip(("height", "width"), size, strict=True))
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in fixed:
                dim.dim_value = fixed[dim.dim_param]


def with_infinity(content: bytes, name: str) -> bytes:
    """The content of a file with infinity in the place of the initializer of a name, a number."""
    proto = onnx.load_from_string(content)
    (number,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    number.CopyFrom(onnx.numpy_helper.from_array(np.array(np.inf, np.float32), name))
    return proto.SerializeToString()


def add_metadata(proto: onnx.ModelProto, metadata: Mapping[str, str], version: str) -> None:
    """Write metadata into a graph, in place."""
    proto.producer_name, proto.producer_version = "eyetoy_mm", version
    onnx.helper.set_model_props(proto, dict(metadata))


def strip(proto: onnx.ModelProto) -> None:
    """Take out, in place, what tools leave in a graph beside its meaning; the metadata of :func:`add_metadata` too."""
    for part in (proto, *proto.functions, *(node for function in proto.functions for node in function.node)):
        _clear(part)
    _strip_graph(proto.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        _clear(part)
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip_graph(attribute.g)


def _clear(part: Any) -> None:
    del part.metadata_props[:]
    part.doc_string = ""


def _name_axes(proto: onnx.ModelProto) -> None:
    """Call the open axes by their names, in the sizes of the outputs too, where PyTorch has s77 and the like."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in AXES.items() if dims[axis].dim_param}
    for dim in _dims([*proto.graph.input, *proto.graph.output]):
        if dim.dim_param:
            dim.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), dim.dim_param)


def _dims(values: Iterable[onnx.ValueInfoProto]) -> Iterable[onnx.TensorShapeProto.Dimension]:
    return (dim for value in values for dim in value.type.tensor_type.shape.dim)
