"""Count what a training step asks of a GPU, without one: operators that launch something, copies and casts.

    python benchmarks/launches.py                     # EyeToy-T, NAT-T, Swin-T, ConvNeXt-T at 224
    python benchmarks/launches.py --size 512 --most 15

Runs forward and backward of the backbones on one image under autocast to bfloat16, on a CPU, and counts operators but
those that are views or only reserve memory. An operator is a launch at least; one of attention is one forward and two
backward. Prints a markdown table, and for each model the operators that are asked for most.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from typing import Any

import models
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eyetoy_mm.backbones import NAT

COPIES = {"clone", "copy_", "_to_copy", "cat", "constant_pad_nd", "repeat", "index", "roll"}
NOTHING = {"empty", "new_empty", "empty_like", "empty_strided", "detach", "_unsafe_view", "lift_fresh"}


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


def count(name: str, size: int) -> dict[str, Count]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NAT(arch="tiny", drop_path_rate=0.0) if name == "NAT-T" else models.build(name, size)
        model.train()  # which some of the peers answer with nothing
        images = torch.randn(1, 3, size, size)
        forward, backward = Count(), Count()
        with torch.autocast("cpu", torch.bfloat16), forward:
            loss = models.total(model(images))
        with backward:
            loss.backward()
    return {"forward": forward, "backward": backward}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "NAT-T", "Swin-T", "ConvNeXt-T"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--most", type=int, default=8)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.size} x {arguments.size}, forward / backward\n")
    print("| model | operators | attention | copies and casts | casts | asked for most in the forward pass |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        found = count(name, arguments.size).values()
        cells = [
            " / ".join(str(value(x)) for x in found)
            for value in (
                lambda x: x.operators.total(),
                lambda x: sum(n for key, n in x.operators.items() if "neighborhood" in key),
                lambda x: sum(n for key, n in x.operators.items() if key in COPIES),
                lambda x: x.casts,
            )
        ]
        most = ", ".join(f"{key} {n}" for key, n in next(iter(found)).operators.most_common(arguments.most))
        print(f"| {name} | {' | '.join(cells)} | {most} |", flush=True)


if __name__ == "__main__":
    main()
