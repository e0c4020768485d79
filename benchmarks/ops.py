"""Time neighborhood attention against dense attention, Swin's windows, NATTEN, and the machine's own matrix product.

    python benchmarks/ops.py                                  # every table, on the CPU
    python benchmarks/ops.py --device cuda                    # bfloat16 on a GPU
    python benchmarks/ops.py --only "window 7" --threads 1    # some rows of the first table
    python benchmarks/ops.py --natten-python OLD/bin/python   # also natten 0.17, from an environment of its own

Prints markdown tables: forward / forward + backward. *Floor* is the time of the forward's 4 * positions * keys * dim
* heads floating point operations at the rate of a square matrix product (1024 in float32 on a CPU, 8192 in bfloat16 on
a GPU). A figure is the median over rounds; in each round every contestant and the product take a turn (one call, or
some 10 ms of calls), so that all meet the same disturbances. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from measuring import exponent, header, in_own_process, peak_memory, row, show
from measuring import machine as name_of_machine
from torch import Tensor, nn


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

    @property
    def shape(self) -> str:
        return f"{self.batch}, {'x'.join(map(str, self.spatial))}, {self.heads}, {self.dim}"


CASES = [
    Case("merging 1, window 17", 1, (56, 56), 2, 32, 17),
    Case("merging 2, window 13", 1, (28, 28), 2, 32, 13),
    Case("merging 4, window 11", 1, (14, 14), 4, 32, 11),
    Case("merging 8, window 9", 1, (7, 7), 8, 32, 9),
    Case("8 maps, window 17", 8, (32, 32), 2, 16, 17),
    Case("larger map, window 17", 1, (128, 128), 2, 32, 17),
    Case("largest map, window 17", 1, (256, 256), 2, 32, 17),
    Case("stage 1, window 7", 8, (56, 56), 2, 32, 7),
    Case("stage 2, window 7", 8, (28, 28), 4, 32, 7),
    Case("stage 3, window 7", 8, (14, 14), 8, 32, 7),
    Case("stage 4, window 7", 8, (7, 7), 16, 32, 7),
    Case("stage 1, window 7, bias", 8, (56, 56), 2, 32, 7, bias=True),
    Case("stage 1, window 7, dilation 8", 8, (56, 56), 2, 32, 7, 8),
    Case("detection, window 7", 1, (128, 256), 4, 32, 7),
    Case("detection, window 7, bias", 1, (128, 256), 4, 32, 7, bias=True),
    # equal work in one, two and three dimensions
    Case("sequence, 64 keys", 1, (4096,), 4, 32, 64),
    Case("image, 64 keys", 1, (64, 64), 4, 32, 8),
    Case("volume, 64 keys", 1, (16, 16, 16), 4, 32, 4),
    Case("sequence, 729 keys", 1, (4096,), 4, 32, 729),
    Case("image, 729 keys", 1, (64, 64), 4, 32, 27),
    Case("volume, 729 keys", 1, (16, 16, 16), 4, 32, 9),
]
SCALING = [Case(f"{side} x {side}", 1, (side, side), 2, 32, 17) for side in (56, 112, 224, 448)]
MEMORY = [SCALING[2], CASES[7], CASES[11]]
TURN = 0.01  # seconds, about, that one contestant runs before the next
LARGEST_DENSE, LARGEST_GATHER = 4096, 2**26  # positions; elements of the gathered keys


class Machine(NamedTuple):
    device: str
    dtype: torch.dtype

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def product(self) -> tuple[Callable[[], Tensor], float]:
        """The yardstick and its operations."""
        size = 8192 if self.device == "cuda" else 1024
        left, right = torch.randn(2, size, size, device=self.device, dtype=self.dtype)
        return lambda: torch.mm(left, right), 2 * size**3


# --- Contestants ------------------------------------------------------------------------------------------------------


def tensors_of(case: Case, machine: Machine) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    shape = (case.batch, *case.spatial, case.heads, case.dim)
    q, k, v = (torch.randn(shape, device=machine.device, dtype=machine.dtype, requires_grad=True) for _ in range(3))
    table = (case.heads, *[2 * case.window - 1] * len(case.spatial))
    bias = torch.randn(table, device=machine.device, dtype=machine.dtype, requires_grad=True) if case.bias else None
    return q, k, v, bias


def contestants(case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> dict[str, Callable[[], Tensor]]:
    """What computes the case, by name; without what cannot, or would take too much memory."""
    from eyetoy_mm.ops import available_backends, neighborhood_attention

    functions: dict[str, Callable[[], Tensor]] = {}
    for name, refusal in available_backends(q, case.window, case.dilation, bias).items():
        if refusal is None and name != "reference":
            functions[name] = lambda name=name: neighborhood_attention(
                q, k, v, case.window, case.dilation, bias, backend=name
            )
    for name, make in (("dense", dense), ("gather", gather), ("natten flex", natten_flex)):
        if bias is None and (function := make(case, q, k, v)):
            functions[name] = function
    return functions


def attended(case: Case) -> list[Tensor]:
    """Per axis a boolean (length, length)."""
    from eyetoy_mm.ops.backend_reference import attended as along
    from eyetoy_mm.ops.neighborhood import Axis

    return [along(Axis(length, case.window, case.dilation)) for length in case.spatial]


def dense(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor] | None:
    if case.positions > LARGEST_DENSE and not q.is_cuda:
        return None
    mask = None
    if not q.is_cuda:  # on a GPU: unmasked, which is what its fastest kernel can do
        mask = torch.ones(1, 1, dtype=torch.bool)
        for along in attended(case):
            mask = torch.kron(mask, along)
        mask = None if mask.all() else mask
    flat = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]
    return lambda: F.scaled_dot_product_attention(*flat, attn_mask=mask).transpose(1, 2).reshape(q.shape)


def gather(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor] | None:
    if q.numel() * case.keys > LARGEST_GATHER or q.is_cuda:
        return None
    index = torch.zeros(1, 1, dtype=torch.long)  # (positions, keys)
    for mask in attended(case):
        if len(set(mask.sum(1).tolist())) > 1:
            return None  # groups of unequal length
        keys = mask.nonzero()[:, 1].view(len(mask), -1)
        index = (index[:, None, :, None] * len(mask) + keys[None, :, None, :]).flatten(2, 3).flatten(0, 1)
    flat = [x.flatten(1, -3) for x in (q, k, v)]  # (B, N, heads, dim)

    def function() -> Tensor:
        keys, values = flat[1][:, index], flat[2][:, index]  # (B, N, keys, heads, dim)
        scores = torch.einsum("bnhd,bnkhd->bnhk", flat[0] * case.dim**-0.5, keys)
        return torch.einsum("bnhk,bnkhd->bnhd", scores.softmax(-1), values).reshape(q.shape)

    return function


def natten_flex(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor] | None:
    """Natten >= 0.20 without its compiled part; it has no backward pass on a CPU."""
    if case.positions > LARGEST_DENSE or not case.natten_allows or q.is_cuda:
        return None
    try:
        import natten
    except ImportError:
        return None
    na = getattr(natten, f"na{len(case.spatial)}d")
    return lambda: na(q.detach(), k.detach(), v.detach(), kernel_size=case.window, dilation=case.dilation)


# --- Measuring --------------------------------------------------------------------------------------------------------

Times = dict[str, list[float | None]]  # name: [forward, forward + backward] in ms


def measure(
    functions: dict[str, Callable[[], Tensor]], inputs: dict[str, list[Tensor]], machine: Machine, rounds: int
) -> tuple[float, Times]:
    """Rate of the product in GFLOP/s, and times of all; ``inputs`` are what each is differentiated by."""
    product, operations = machine.product()
    runs: dict[tuple[str, int], Callable[[], object]] = {("product", 0): product}
    for name, function in functions.items():
        runs[name, 0] = torch.no_grad()(function)
        if (output := function()).requires_grad:
            gradient = torch.randn_like(output)
            runs[name, 1] = lambda f=function, g=gradient, x=inputs[name]: torch.autograd.grad(f(), x, g)
    times: dict = {key: [] for key in runs}
    calls = {key: 1 for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            machine.synchronize()
            start = time.perf_counter()
            for _ in range(calls[key]):
                run()
            machine.synchronize()
            took = (time.perf_counter() - start) / calls[key]
            if number:
                times[key].append(took)
            else:  # warms up, and tells how many calls a turn needs to be more than its beginning
                calls[key] = max(1, min(100, round(TURN / took)))
    medians = {key: statistics.median(seconds) * 1e3 for key, seconds in times.items()}
    rate = operations / medians.pop(("product", 0)) / 1e6
    return rate, {name: [medians.get((name, 0)), medians.get((name, 1))] for name in functions}


def old_natten(case: Case) -> tuple[Callable[[], Tensor], list[Tensor]] | None:
    """The CPU kernels of natten 0.17; runs in the interpreter that has them."""
    torch.cuda.get_device_capability = lambda *_: (0, 0)  # it asks when it is imported
    import natten.functional as old

    n = len(case.spatial)
    if case.bias or case.window % 2 == 0 or not case.natten_allows:
        return None
    q, k, v = (torch.randn(case.batch, case.heads, *case.spatial, case.dim, requires_grad=True) for _ in range(3))
    qk, av = getattr(old, f"na{n}d_qk"), getattr(old, f"na{n}d_av")

    def function() -> Tensor:
        scores = qk(q * case.dim**-0.5, k, kernel_size=case.window, dilation=case.dilation)
        return av(scores.softmax(-1), v, kernel_size=case.window, dilation=case.dilation)

    return function, [q, k, v]


# --- Tables -----------------------------------------------------------------------------------------------------------


def cases_table(machine: Machine, arguments: argparse.Namespace) -> None:
    cases = [case for case in CASES if arguments.only in case.name]
    first = contestants(cases[0], *tensors_of(cases[0], machine))
    columns = [*first, *(["natten 0.17"] if arguments.natten_python else [])]
    best = columns[0]
    header("case", "(B, map, heads, dim)", "GFLOP/s", "floor, ms", f"{best}, ms", *columns)
    for case in cases:
        inputs = tensors_of(case, machine)
        functions = contestants(case, *inputs)
        leaves = [x for x in inputs if x is not None]
        rate, times = measure(functions, {name: leaves for name in functions}, machine, arguments.rounds)
        floor = case.operations / rate / 1e6
        multiples = {name: [t and t / floor for t in pair] for name, pair in times.items()}
        if arguments.natten_python:
            theirs = own_process(arguments, {"task": "natten", "case": CASES.index(case)}, arguments.natten_python)
            if theirs:
                multiples["natten 0.17"] = [t / (case.operations / theirs[0] / 1e6) for t in theirs[1]]
        cells = [show(multiples.get(name)) for name in columns]
        row(case.name, case.shape, f"{rate:.0f}", f"{floor:.2f}", show(times[best]), *cells)


def layer_table(machine: Machine, arguments: argparse.Namespace) -> None:
    """An attention layer, projections included, against Swin's with the same ones, windows already cut out."""
    try:
        from mmpretrain.models.utils import WindowMSA
    except ImportError as error:
        print(f"\nSwin's layer is left out: {error}")
        return
    from eyetoy_mm.ops import neighborhood_attention

    class Layer(nn.Module):
        def __init__(self, channels: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
            self.bias = nn.Parameter(torch.zeros(heads, 13, 13))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
            return self.proj(neighborhood_attention(q, k, v, 7, bias=self.bias).flatten(-2))

    header("layer with bias, window 7", "(B, map, heads, dim)", "ours, ms", "Swin's WindowMSA, ms", "ours / Swin's")
    for batch, side, heads in [(8, 56, 3), (8, 28, 6), (8, 14, 12), (8, 7, 24)]:
        channels = 32 * heads
        ours = Layer(channels, heads).to(machine.device, machine.dtype)
        swin = WindowMSA(channels, (7, 7), heads).to(machine.device, machine.dtype)
        x = torch.randn(batch, side, side, channels, device=machine.device, dtype=machine.dtype)
        windows = x.view(batch, side // 7, 7, side // 7, 7, channels).transpose(2, 3).reshape(-1, 49, channels)
        functions = {"ours": lambda m=ours, x=x: m(x), "swin": lambda m=swin, x=windows: m(x)}
        parameters = {"ours": list(ours.parameters()), "swin": list(swin.parameters())}
        _, times = measure(functions, parameters, machine, arguments.rounds)
        ratio = [a / b for a, b in zip(times["ours"], times["swin"], strict=True)]
        shape = f"{batch}, {side}x{side}, {heads}, 32"
        row(f"stage of {channels} channels", shape, show(times["ours"]), show(times["swin"]), show(ratio, 2))


def scaling_table(machine: Machine, arguments: argparse.Namespace) -> None:
    header("window 17, 2 x 32", "positions", "ms", "peak memory, MB", "of q, k and v")
    points = []
    for case in SCALING:
        inputs = tensors_of(case, machine)
        name = next(iter(contestants(case, *inputs)))
        functions = {name: contestants(case, *inputs)[name]}
        _, times = measure(functions, {name: list(inputs[:3])}, machine, arguments.rounds)
        peaks = [memory_of(case, name, train, arguments) for train in (False, True)]
        size = 3 * inputs[0].nbytes
        points.append((case.positions, *times[name], *peaks))
        row(
            case.name,
            str(case.positions),
            show(times[name]),
            show([x / 1e6 for x in peaks]),
            show([x / size for x in peaks], 2),
        )
    sizes, *values = zip(*points, strict=True)
    slopes = [exponent(sizes, measured) for measured in values]
    row("fitted exponent", "", show(slopes[:2], 2), show(slopes[2:], 2), "")


def memory_of(case: Case, name: str, train: bool, arguments: argparse.Namespace) -> float:
    return own_process(arguments, {"task": "memory", "case": case, "name": name, "train": train})


def own_process(arguments: argparse.Namespace, task: dict, python: str = sys.executable):
    options = ["--device", arguments.device, "--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    return in_own_process(__file__, options, task, python)


def memory_table(machine: Machine, arguments: argparse.Namespace) -> None:
    names = list(contestants(MEMORY[1], *tensors_of(MEMORY[1], machine)))
    names = [name for name in names if name != "natten flex"]
    header("peak memory, in bytes of q, k and v", "(B, map, heads, dim)", *names)
    for case in MEMORY:
        inputs = tensors_of(case, machine)
        size = 3 * inputs[0].nbytes
        able = contestants(case, *inputs)
        cells = []
        for name in names:
            peaks = (
                [memory_of(case, name, train, arguments) / size for train in (False, True)] if name in able else None
            )
            cells.append(show(peaks))
        row(case.name, case.shape, *cells)


def measure_memory(case: Case, name: str, train: bool, machine: Machine) -> float:
    """Bytes at the peak beyond those held before, the output included."""
    small = tensors_of(case._replace(batch=1, spatial=tuple(min(24, s) for s in case.spatial)), machine)
    small_case = case._replace(batch=1, spatial=tuple(min(24, s) for s in case.spatial))
    contestants(small_case, *small)[name]().sum().backward()  # what is allocated once
    inputs = tensors_of(case, machine)
    function = contestants(case, *inputs)[name]
    leaves = [x for x in inputs if x is not None]

    def run() -> None:
        if train:
            torch.autograd.grad(function().sum(), leaves)
        else:
            with torch.no_grad():
                function()

    return peak_memory(run, machine.device)


def work(task: dict, machine: Machine, rounds: int) -> object:
    if task["task"] == "memory":
        name, batch, spatial, *rest = task["case"]
        return measure_memory(Case(name, batch, tuple(spatial), *rest), task["name"], task["train"], machine)
    theirs = old_natten(CASES[task["case"]])
    if theirs is None:
        return None
    rate, times = measure({"old": theirs[0]}, {"old": theirs[1]}, machine, min(rounds, 3))
    return rate, times["old"]


TABLES = {"cases": cases_table, "layer": layer_table, "scaling": scaling_table, "memory": memory_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name has this in it, and no other table")
    parser.add_argument("--table", choices=TABLES, help="one of the tables")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--natten-python", help="interpreter of an environment with natten 0.17 and its torch")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    machine = Machine(arguments.device, torch.bfloat16 if arguments.device == "cuda" else torch.float32)
    if arguments.worker:
        json.dump(work(arguments.worker, machine, arguments.rounds), sys.stdout)
        return
    threads = "" if arguments.device == "cuda" else f", {arguments.threads} threads"
    dtype = str(machine.dtype).removeprefix("torch.")
    where = f"{name_of_machine(arguments.device)}{threads}, {dtype}"
    print(f"torch {torch.__version__}, {where}, medians of {arguments.rounds}")
    for name, table in TABLES.items():
        if arguments.table in (None, name) and (name == "cases" or not arguments.only):
            table(machine, arguments)


if __name__ == "__main__":
    main()
