"""Count what a training step asks of a GPU, without one: operators that launch something, copies and casts.

    python benchmarks/launches.py                     # EyeToy-T, NAT-T, Swin-T, ConvNeXt-T at 224
    python benchmarks/launches.py --size 512 --most 15
    python benchmarks/launches.py --as-on-a-gpu       # the forward pass alone, as CUDA and its autocast have it
    python benchmarks/launches.py --graphs            # besides, what torch.compile makes of a training step; minutes

Runs forward and backward of the backbones on one image under autocast to bfloat16, on a CPU, and counts operators but
those that are views or only reserve memory. An operator is a launch at least; one of attention is one forward and two
backward. ``--as-on-a-gpu`` runs on tensors that are on a GPU but for having no memory, and channels_last: layers take
the ways that they take there, and layer norms are float32. Prints a markdown table, and for each model the operators
that are asked for most.
"""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import models
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from eyetoy_mm.backbones import NAT
from eyetoy_mm.ops import dense_form, use_backend

COPIES = {"clone", "copy_", "_to_copy", "cat", "constant_pad_nd", "repeat", "index", "roll"}
NOTHING = {"empty", "new_empty", "empty_like", "empty_strided", "detach", "_unsafe_view", "lift_fresh", "device"}


class Count(TorchDispatchMode):
    """Operators by name, without views, and casts among them."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.casts = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.split(".")[0]
        aliases = [a.alias_info for a in function._schema.returns]
        is_view = bool(aliases) and all(a is not None and not a.is_write for a in aliases)
        if not is_view and name not in NOTHING:
            self.operators[name] += 1
            self.casts += name == "_to_copy" and (kwargs or {}).get("dtype") is not None
        return function(*args, **(kwargs or {}))


def build(name: str, size: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NAT(arch="tiny", drop_path_rate=0.0) if name == "NAT-T" else models.build(name, size)
        model.train()  # which some of the peers answer with nothing
    return model


def count(name: str, size: int) -> list[Count]:
    """Forward and backward."""
    model, images = build(name, size), torch.randn(1, 3, size, size)
    forward, backward = Count(), Count()
    with torch.autocast("cpu", torch.bfloat16), forward:
        loss = models.total(model(images))
    with backward:
        loss.backward()
    return [forward, backward]


def count_as_on_a_gpu(name: str, size: int) -> list[Count]:
    """Forward; autograd refuses to go back on a GPU that is not there."""
    model, forward = build(name, size), Count()
    with FakeTensorMode(allow_non_fake_inputs=True), _one_operator_for_attention(), _autocast_of_cuda():
        state = dict(model.named_parameters()) | dict(model.named_buffers())
        there = {
            key: torch.empty(x.shape, dtype=x.dtype, device="cuda", requires_grad=x.requires_grad)
            for key, x in state.items()
        }
        images = torch.empty(1, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
        with forward:
            torch.func.functional_call(model, there, images)
    return [forward]


@contextlib.contextmanager
def _one_operator_for_attention() -> Iterator[None]:
    small_map, dense_form.SMALL_MAP = dense_form.SMALL_MAP, 0
    try:
        with use_backend("torch"):
            yield
    finally:
        dense_form.SMALL_MAP = small_map


@contextlib.contextmanager
def _autocast_of_cuda() -> Iterator[None]:
    """As ``torch.autocast("cuda", torch.bfloat16)``, which does nothing where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def graphs(name: str, size: int) -> str:
    """Graphs of ``torch.compile``, and breaks between them."""
    found = torch._dynamo.explain(build(name, size))(torch.randn(1, 3, size, size))
    torch.compiler.reset()
    return f"{found.graph_count}, {found.graph_break_count} breaks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "NAT-T", "Swin-T", "ConvNeXt-T"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--most", type=int, default=8)
    parser.add_argument("--as-on-a-gpu", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    arguments = parser.parse_args()
    passes = "forward, as on a GPU" if arguments.as_on_a_gpu else "forward / backward"
    print(f"torch {torch.__version__}, {arguments.size} x {arguments.size}, {passes}\n")
    print("| model | operators | attention | copies and casts | casts | asked for most in the forward pass | graphs |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        found = (count_as_on_a_gpu if arguments.as_on_a_gpu else count)(name, arguments.size)
        cells = [
            " / ".join(str(value(x)) for x in found)
            for value in (
                lambda x: x.operators.total(),
                lambda x: sum(n for key, n in x.operators.items() if "neighborhood" in key),
                lambda x: sum(n for key, n in x.operators.items() if key in COPIES),
                lambda x: x.casts,
            )
        ]
        most = ", ".join(f"{key} {n}" for key, n in found[0].operators.most_common(arguments.most))
        compiled = graphs(name, arguments.size) if arguments.graphs else "-"
        print(f"| {name} | {' | '.join(cells)} | {most} | {compiled} |", flush=True)


if __name__ == "__main__":
    main()
