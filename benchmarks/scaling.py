"""How time and memory of whole encoders, and of global attention, grow with the number of positions.

    python benchmarks/scaling.py

Prints markdown tables with fitted exponents: 1 is linear. Time is the median over rounds, forward / forward + backward;
peak memory that of a process of its own, beyond weights and input.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
from measuring import exponent, header, in_own_process, machine, peak_memory, row, show
from torch import nn

from eyetoy_mm.encoder import Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.layers.global_attention import GlobalAttentionTransformer
from eyetoy_mm.params import DEFAULT_SEQ_ENCODER_PARAMS, DEFAULT_VOL_ENCODER_PARAMS

SIZES = {
    "sequence": [(4096,), (8192,), (16384,), (32768,)],
    "image": [(128, 128), (256, 256), (512, 512), (1024, 1024)],
    "volume": [(16, 32, 32), (32, 32, 32), (32, 64, 32), (32, 64, 64)],
    "global attention": [(1024,), (4096,), (16384,), (65536,)],
}
TITLES = {
    "sequence": "Encoder1D, default, 1 x L",
    "image": "Encoder2D, tiny, 3 x H x W",
    "volume": "Encoder3D, default, 1 x D x H x W",
    "global attention": "one global layer, 512 channels, 8 heads, 32 registers and the context token",
}


class Global(nn.Module):
    """One global layer on a sequence of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = GlobalAttentionTransformer(512, 8, num_register_tokens=32, dropout=0.0)

    def forward(self, x: torch.Tensor) -> tuple:
        return self.layer(x)


def build(family: str, size: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    """A model and its input."""
    if family == "global attention":
        return Global(), torch.randn(1, *size, 512)
    if family == "image":
        from eyetoy_mm.archs import ARCHS, encoder_params

        return Encoder2D(**encoder_params(ARCHS["tiny"]).__dict__), torch.randn(1, 3, *size)
    params, encoder = {
        "sequence": (DEFAULT_SEQ_ENCODER_PARAMS, Encoder1D),
        "volume": (DEFAULT_VOL_ENCODER_PARAMS, Encoder3D),
    }[family]
    return encoder(**params.__dict__), torch.randn(1, params.input_channels, *size)


def passes(family: str, size: tuple[int, ...]) -> list[Callable[[], None]]:
    """Forward, and forward + backward."""
    model, x = build(family, size)

    def forward() -> None:
        model.eval()
        with torch.inference_mode():
            model(x)

    def forward_and_backward() -> None:
        model.train()
        sum(part.mean() for part in model(x)).backward()
        model.zero_grad(set_to_none=True)

    return [forward, forward_and_backward]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.worker:
        family, size, index = arguments.worker
        passes(family, SIZES[family][0])[index]()  # what is allocated once
        json.dump(peak_memory(passes(family, tuple(size))[index]), sys.stdout)
        return
    where = f"{machine('cpu')}, {arguments.threads} threads, float32"
    print(f"torch {torch.__version__}, {where}, medians of {arguments.rounds}")
    for family in [arguments.only] if arguments.only else SIZES:
        header(TITLES[family], "positions", "ms", "peak memory, MB")
        points = []
        tasks = {size: passes(family, size) for size in SIZES[family]}
        times: dict = {(size, index): [] for size in tasks for index in (0, 1)}
        for number in range(arguments.rounds + 1):
            for size, index in times:
                start = time.perf_counter()
                tasks[size][index]()
                if number:  # the first warms up
                    times[size, index].append((time.perf_counter() - start) * 1e3)
        for size in tasks:
            took = [statistics.median(times[size, index]) for index in (0, 1)]
            options = ["--threads", str(arguments.threads)]
            peaks = [in_own_process(__file__, options, [family, size, index]) / 1e6 for index in (0, 1)]
            points.append((math.prod(size), *took, *peaks))
            row("x".join(map(str, size)), str(math.prod(size)), show(took), show(peaks))
        sizes, *values = zip(*points, strict=True)
        slopes = [exponent(sizes, measured) for measured in values]
        row("fitted exponent", "", show(slopes[:2], 2), show(slopes[2:], 2))


if __name__ == "__main__":
    main()
