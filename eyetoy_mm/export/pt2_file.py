"""Export a trained model to a program of torch.export, for servers that have PyTorch and not this package."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.checking import check_all, metadata, snippet
from eyetoy_mm.export.models import ExportModel, make_export_model
from eyetoy_mm.export.runtimes import Run, load_pt2, run_of_pt2
from eyetoy_mm.export.tracing import trace
from eyetoy_mm.whole_files import write_whole

_WITHOUT_US = ("aten", "prims", "higher_order", "torchvision")  # namespaces of operators that a server has


def export_pt2(
    predictor: Predictor,
    config: Config,
    out: Path,
    part: str,
    size: tuple[int, int],
    photo: str | Path | None = None,
) -> Iterator[str]:
    """Export a model for images of one size, check the file against the toolbox, and write it.

    Arguments, what is yielded and errors are those of :func:`~eyetoy_mm.export.onnx_file.export_onnx`. An open size
    would leave neighborhood attention as one node, whose meaning is in this package.
    """
    model = make_export_model(predictor, config.default_scope, part)
    program = build_program(model, size)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / out.name
        torch.export.save(program, draft, extra_files=metadata(predictor, config, model, size))
        loaded = load_pt2(draft)

        def open_raised(name: str) -> Run:
            setattr(loaded, name, torch.tensor(math.inf))
            return run_of_pt2(loaded)

        yield from check_all(predictor, model, run_of_pt2(loaded), open_raised, size, photo)
        content = draft.read_bytes()
    write_whole(out, content)
    yield f"{out}: {len(content) / 1e6:.1f} MB, torch.export of PyTorch {torch.__version__}"
    needs = ", torchvision" if _namespaces(program) & {"torchvision"} else ""
    opening = f"model = torch.export.load({out.name!r}).module()"
    outputs = "[output.detach().numpy() for output in model(torch.from_numpy(images))]"
    yield snippet(predictor, model, size, f"torch{needs}", opening, outputs)


def build_program(model: ExportModel, size: tuple[int, int]) -> ExportedProgram:
    """Export a model for one size and, where it takes any, any batch; without paths of this machine.

    Raises:
        UserError: PyTorch cannot export it, or what it exports needs more than PyTorch and torchvision.
    """
    try:
        program = trace(model, size, {0: torch.export.Dim("batch")} if model.any_batch else {})
    except Exception as error:  # of whatever kind the part of PyTorch raises that does not know an operation
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"torch.export cannot export this model: {type(error).__name__}: {lines[0]}") from error
    foreign = _namespaces(program) - set(_WITHOUT_US)
    if foreign:
        raise UserError(
            f"the exported program has operators of {', '.join(sorted(foreign))}, which servers do not have"
        )
    for node in _nodes(program):
        node.meta.pop("stack_trace", None)
    return program


def _nodes(program: ExportedProgram) -> Iterator[Node]:
    """Of the graph and of those within it: regions without gradients, branches, loops."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            yield from module.graph.nodes


def _namespaces(program: ExportedProgram) -> set[str]:
    """Of the operators that a program calls."""
    targets = [node.target for node in _nodes(program) if node.op == "call_function"]
    return {target.namespace for target in targets if hasattr(target, "namespace")}
