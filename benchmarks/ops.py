"""Time neighborhood attention against dense attention, gathering, NATTEN, and the machine's own matrix product.

    python benchmarks/ops.py                              # every case
    python benchmarks/ops.py --only "window 7" --threads 1
    python benchmarks/ops.py --natten-python OLD/bin/python   # also natten 0.17, from an environment of its own

Prints a markdown table: forward / forward + backward, as multiples of the *floor*, the time of the forward's
``4 * positions * window * dim * heads`` floating point operations at the rate of a 1024 x 1024 float32 matrix product.
A figure is the median over rounds; in each round every contestant runs once, so that all meet the same disturbances.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Case(NamedTuple):
    name: str
    batch: int
    spatial: tuple[int, ...]
    heads: int
    dim: int
    window: int
    dilation: int = 1
    bias: bool = False

    @property
    def positions(self) -> int:
        return math.prod(self.spatial)

    @property
    def keys(self) -> int:
        """Keys per query."""
        return math.prod(min(self.window, length // self.dilation) for length in self.spatial)

    @property
    def natten_allows(self) -> bool:
        return self.window >= 2 and self.window * self.dilation <= min(self.spatial)

    @property
    def operations(self) -> int:
        return 4 * self.batch * self.positions * self.keys * self.heads * self.dim


CASES = [
    Case("merging 1, window 17", 1, (56, 56), 2, 32, 17),
    Case("merging 2, window 13", 1, (28, 28), 2, 32, 13),
    Case("merging 4, window 11", 1, (14, 14), 4, 32, 11),
    Case("merging 8, window 9", 1, (7, 7), 8, 32, 9),
    Case("8 maps, window 17", 8, (32, 32), 2, 16, 17),
    Case("stage 1, window 7", 8, (56, 56), 2, 32, 7),
    Case("stage 2, window 7", 8, (28, 28), 4, 32, 7),
    Case("stage 3, window 7", 8, (14, 14), 8, 32, 7),
    Case("stage 4, window 7", 8, (7, 7), 16, 32, 7),
    Case("stage 1, window 7, bias", 8, (56, 56), 2, 32, 7, bias=True),
    Case("stage 1, window 7, dilation 8", 8, (56, 56), 2, 32, 7, 8),
    Case("stage 2, window 7, dilation 4", 8, (28, 28), 4, 32, 7, 4),
    Case("detection, window 7", 1, (128, 256), 4, 32, 7),
    Case("larger map, window 17", 1, (128, 128), 2, 32, 17),
    Case("largest map, window 17", 1, (256, 256), 2, 32, 17),
    Case("sequence, window 65", 1, (8192,), 4, 32, 65),
    Case("sequence, window 255", 1, (8192,), 4, 32, 255),
    Case("volume, window 5", 1, (16, 16, 16), 2, 32, 5),
    Case("volume, window 7", 1, (16, 24, 24), 2, 32, 7),
]
CONTESTANTS = ["torch", "dense", "gather", "natten"]
LARGEST_DENSE, LARGEST_GATHER = 4096, 2**28  # positions; elements of the gathered keys


def product() -> None:
    """The yardstick: 2 * 1024 ** 3 operations."""
    torch.mm(product.left, product.right)


def contestant(
    name: str, case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> Callable[[], Tensor] | None:
    """A function that computes the case, or None where it cannot or would take too much memory."""
    from eyetoy_mm.ops import neighborhood_attention
    from eyetoy_mm.ops.backend_reference import attended
    from eyetoy_mm.ops.neighborhood import Neighborhood

    n = len(case.spatial)
    neighborhood = Neighborhood.of(case.spatial, (case.window,) * n, (case.dilation,) * n)
    if name == "torch":
        return lambda: neighborhood_attention(q, k, v, case.window, case.dilation, bias, backend="torch")
    if bias is not None:
        return None
    if name == "dense" and case.positions <= LARGEST_DENSE:
        mask = torch.ones(1, 1, dtype=torch.bool)
        for axis in neighborhood.axes:
            mask = torch.kron(mask, attended(axis))
        mask = None if mask.all() else mask
        flat = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]
        return lambda: F.scaled_dot_product_attention(*flat, attn_mask=mask).transpose(1, 2)
    if name == "gather" and q.numel() * case.keys <= LARGEST_GATHER:
        index = torch.zeros(1, 1, dtype=torch.long)  # (positions, keys)
        for axis in neighborhood.axes:
            keys = torch.tensor([list(axis.keys(i))[: case.window] for i in range(axis.length)])
            index = (index[:, None, :, None] * axis.length + keys[None, :, None, :]).flatten(2, 3).flatten(0, 1)
        flat = [x.flatten(1, -3) for x in (q, k, v)]  # (B, N, heads, dim)

        def gather() -> Tensor:
            keys, values = flat[1][:, index], flat[2][:, index]  # (B, N, keys, heads, dim)
            scores = torch.einsum("bnhd,bnkhd->bnhk", flat[0] * case.dim**-0.5, keys)
            return torch.einsum("bnhk,bnkhd->bnhd", scores.softmax(-1), values)

        return gather
    if name == "natten" and case.positions <= LARGEST_DENSE and case.natten_allows:
        try:
            import natten
        except ImportError:
            return None
        na = getattr(natten, f"na{n}d")
        return lambda: na(q.detach(), k.detach(), v.detach(), kernel_size=case.window, dilation=case.dilation)
    return None


def measure(case: Case, rounds: int) -> tuple[float, float, dict[str, tuple[float | None, float | None]]]:
    """Rate of the yardstick in GFLOP/s, the floor in ms, and ms forward and forward + backward per contestant."""
    shape = (case.batch, *case.spatial, case.heads, case.dim)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    tensors = [q, k, v]
    bias = None
    if case.bias:
        bias = torch.randn(case.heads, *[2 * case.window - 1] * len(case.spatial), requires_grad=True)
        tensors.append(bias)
    runs: dict[tuple[str, str], Callable[[], object]] = {("product", "forward"): product}
    for name in CONTESTANTS:
        function = contestant(name, case, q, k, v, bias)
        if function is None:
            continue
        runs[name, "forward"] = torch.no_grad()(function)
        if name != "natten":  # it has no backward pass on CPU
            gradient = torch.randn_like(function())
            runs[name, "both"] = lambda f=function, g=gradient: torch.autograd.grad(f(), tensors, g)
    return summarise(case, runs, rounds)


def summarise(case: Case, runs: dict, rounds: int) -> tuple[float, float, dict]:
    times: dict = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if number:  # the first warms up
                times[key].append(time.perf_counter() - start)
    medians = {key: statistics.median(some) * 1e3 for key, some in times.items()}
    rate = 2 * 1024**3 / medians["product", "forward"] / 1e6
    names = dict.fromkeys(name for name, _ in runs if name != "product")
    results = {name: (medians.get((name, "forward")), medians.get((name, "both"))) for name in names}
    return rate, case.operations / rate / 1e6, results


def measure_old_natten(case: Case, rounds: int) -> tuple[float, float, dict] | None:
    """The same with the CPU kernels of natten 0.17; runs in the interpreter that has them."""
    import natten.functional as old

    n = len(case.spatial)
    if case.bias or case.window % 2 == 0 or not case.natten_allows:
        return None
    q, k, v = (torch.randn(case.batch, case.heads, *case.spatial, case.dim, requires_grad=True) for _ in range(3))
    qk, av = getattr(old, f"na{n}d_qk"), getattr(old, f"na{n}d_av")

    def function() -> Tensor:
        scores = qk(q * case.dim**-0.5, k, kernel_size=case.window, dilation=case.dilation)
        return av(scores.softmax(-1), v, kernel_size=case.window, dilation=case.dilation)

    gradient = torch.randn_like(function())
    runs = {
        ("product", "forward"): product,
        ("natten 0.17", "forward"): torch.no_grad()(function),
        ("natten 0.17", "both"): lambda: torch.autograd.grad(function(), (q, k, v), gradient),
    }
    return summarise(case, runs, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--natten-python", help="interpreter of an environment with natten 0.17 and its torch")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    product.left, product.right = torch.randn(2, 1024, 1024)
    cases = [case for case in CASES if arguments.only in case.name]
    if arguments.worker:
        json.dump([measure_old_natten(case, arguments.rounds) for case in cases], sys.stdout)
        return
    old = [None] * len(cases)
    if arguments.natten_python:
        command = [
            arguments.natten_python,
            __file__,
            "--worker",
            "--only",
            arguments.only,
            "--threads",
            str(arguments.threads),
        ]
        done = subprocess.run([*command, "--rounds", "3"], stdout=subprocess.PIPE, text=True, check=True)
        old = json.loads(done.stdout)
    columns = [*CONTESTANTS, *(["natten 0.17"] if arguments.natten_python else [])]
    print(f"torch {torch.__version__}, {arguments.threads} threads, float32, median of {arguments.rounds}")
    print(f"\n| case | (B, map, heads, dim) | GFLOP/s | floor, ms | torch, ms | {' | '.join(columns)} |")
    print("|---" * (5 + len(columns)) + "|")
    for case, past in zip(cases, old, strict=True):
        rate, floor, results = measure(case, arguments.rounds)
        multiples = {name: [t and t / floor for t in pair] for name, pair in results.items()}
        if past:
            multiples["natten 0.17"] = [t and t / past[1] for t in past[2]["natten 0.17"]]
        shape = f"{case.batch}, {'x'.join(map(str, case.spatial))}, {case.heads}, {case.dim}"
        cells = [show(multiples.get(name)) for name in columns]
        took = " / ".join(f"{t:.1f}" for t in results["torch"])
        print(f"| {case.name} | {shape} | {rate:.0f} | {floor:.2f} | {took} | {' | '.join(cells)} |", flush=True)


def show(pair: list[float | None] | None) -> str:
    return (
        "-" if pair is None else " / ".join("-" if x is None else f"{x:.1f}" if x < 100 else f"{x:.0f}" for x in pair)
    )


if __name__ == "__main__":
    main()
