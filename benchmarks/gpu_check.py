"""What could not be settled without a GPU, in about ten minutes on one. Send back the two files that it writes.

    python benchmarks/gpu_check.py                        # everything; needs a GPU of NVIDIA or AMD
    python benchmarks/gpu_check.py --only values speed    # some sections
    python benchmarks/gpu_check.py --minutes 20           # instead of ten
    python benchmarks/gpu_check.py --dry                  # every line once, tiny, on a CPU: no figure means anything

Sections: ``about`` (the machine, what is installed), ``determinism`` (twice, bit by bit), ``models`` (training steps of
EyeToy-T, NAT-T and peers), ``values`` (random cases beside a loop, gradients too), ``compilations`` (how many kernels
60 sizes need), ``graphs`` (of ``torch.compile`` for several sizes), ``launch`` (time of the host), ``speed`` (every
back end and dense attention, in turn) and ``registers`` (of compiled kernels).

Each section is a process of its own with a share of the time: one that fails, crashes or hangs says so in one line, and
the next one goes on. So does a row (no memory left, a package that is not there). torch alone is needed, with its
Triton; without mmpretrain the peers are timm's, and without mmengine there is no NAT. Results: ``gpu_check.json`` and
``gpu_check.md`` in the current folder, written anew after each row.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import here  # noqa: F401 - first
import models
import operator_cases
import ops
import torch
from measuring import machine
from own_process import in_one_line, yielded
from triton_interpreter import interpreted

from eyetoy_mm.engine.measuring import usable_cores
from eyetoy_mm.ops import available_backends, backend_triton, neighborhood_attention, use_backend

# Predicted from compiled code, us of each kernel, where the issue of instructions is what limits them. What is found
# stands beside it in the table. On an H200 three of them took about twice that (32 / 32 / 46), so twice is expected of
# the others, too; the gradient of a bias took some 190 and 1750 as it was before.
PREDICTED = {
    ("H100", "H200"): {
        "window 17": "forward 17, query_gradient 16, key_value_gradient 20",
        "window 7, bias": "bias_gradient 15",
        "detection, window 7, bias": "bias_gradient 120",
    }
}

CASES = [
    ops.Case("window 17", 8, (56, 56), 2, 32, 17),
    ops.Case("window 13", 8, (28, 28), 2, 32, 13),
    ops.Case("window 11", 8, (14, 14), 4, 32, 11),
    ops.Case("window 9", 8, (7, 7), 8, 32, 9),
    ops.Case("window 7, bias", 8, (56, 56), 2, 32, 7, bias=True),
    ops.Case("window 7, dilation 8", 8, (56, 56), 2, 32, 7, 8),
    ops.Case("large, window 17", 8, (128, 128), 2, 32, 17),
    ops.Case("detection, window 7", 2, (200, 336), 3, 32, 7),
    ops.Case("detection, window 7, bias", 2, (200, 336), 3, 32, 7, bias=True),
    ops.Case("head dim 64", 8, (56, 56), 4, 64, 13),
]
TINY = ops.Case("tiny", 1, (4, 5), 1, 8, 3)
COMPILED = ("window 17",)  # by flex, some quarter of a minute each
Row = dict[str, Any]


class Run(NamedTuple):
    """Where it runs, and whether in earnest."""

    device: str
    dry: bool

    def qkv(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
        """Views of one projection, as the layers pass them."""
        *outer, heads, dim = shape
        packed = torch.randn(*outer, 3, heads, dim, device=self.device).to(dtype)
        return [x.detach().requires_grad_() for x in packed.unbind(-3)]

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def about(run: Run) -> Iterator[Row]:
    """The machine, and what is installed."""
    packages = {}
    for name in ("torch", "triton", "natten", "numpy", "mmengine", "mmcv-lite", "mmcv", "mmpretrain", "timm"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    yield {
        "on": machine(run.device),
        "capability": torch.cuda.get_device_capability() if run.device == "cuda" else "-",
        "python": platform.python_version(),
        "cores": usable_cores(),
        "packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
    }
    for name, reason in available_backends(torch.randn(1, 9, 9, 1, 32, device=run.device), 3).items():
        yield {"back end": name, "does not run": reason or "it does"}


def values(run: Run) -> Iterator[Row]:
    """Cases beyond what is allowed, of 150; output and gradients."""
    wanted = 3 if run.dry else 150
    cases = itertools.islice(filter(functools.partial(_is_for_values, run), map(operator_cases.draw, count())), wanted)
    bad, worst = 0, 0.0
    for done, (case, difference, what) in enumerate(_differences(run, cases), start=1):
        if not difference <= 1:
            bad += 1
            yield {"case": case.number, "differs": what, "of what is allowed": difference, "of": str(case)}
        worst = max(worst, difference)
        if done % 50 == 0 or done == wanted:  # so that something is known where not all are reached
            yield {"cases": done, "bad": bad, "worst, of what is allowed": round(worst, 3)}


def _differences(run: Run, cases: Iterator[operator_cases.Case]) -> Iterator[tuple[operator_cases.Case, float, str]]:
    if run.dry:
        yield from (_difference(run.device, case) for case in cases)
        return
    # nearly every case is compiled by itself
    with ProcessPoolExecutor(max(1, usable_cores() // 2), get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_difference, run.device, case) for case in cases]):
            yield future.result()


def _is_for_values(run: Run, case: operator_cases.Case) -> bool:
    positions = math.prod(case.spatial) * case.batch * case.heads
    if case.dtype == torch.float64 or not positions or not case.value_dim:
        return False
    return not run.dry or (positions <= 60 and not case.bias)


def _difference(device: str, case: operator_cases.Case) -> tuple[operator_cases.Case, float, str]:
    """The worst difference from a loop in double precision, as a share of what is allowed, and what differs."""

    def attend(*inputs: torch.Tensor | None) -> torch.Tensor:
        query, key, value, bias = (x if x is None else x.to(device) for x in inputs)
        sizes = case.kernel_size, case.dilation
        return neighborhood_attention(query, key, value, *sizes, bias, case.scale, backend="triton").cpu()

    torch.set_num_threads(1)  # the loop's; there are several such processes
    expected = operator_cases.results(case, functools.partial(operator_cases.brute_force, case), torch.float64)
    try:
        difference, what = operator_cases.worst(case, operator_cases.results(case, attend), expected)
    except Exception as error:  # the other cases are still worth something
        return case, math.inf, _failure(error)
    return case, difference / operator_cases.ALLOWED[case.dtype], what


def _failure(error: Exception) -> str:
    """In one line; what the failed call held of the GPU's memory is free again."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return in_one_line(error)


def determinism(run: Run) -> Iterator[Row]:
    """The same bits in two runs: gradients of query, key, value and bias."""
    inputs = run.qkv(1, 3, 4, 1, 8) if run.dry else run.qkv(2, 40, 44, 2, 32)
    window = 2 if run.dry else 7
    table = [2 * window - 1] * 2
    inputs.append(torch.randn(inputs[0].shape[-2], *table, device=run.device, requires_grad=True))
    runs = []
    for _ in range(2):
        output = neighborhood_attention(*inputs[:3], window, 1, inputs[3], backend="triton")
        runs.append(torch.autograd.grad(output.float().square().sum(), inputs))
    yield {"same": [bool(torch.equal(a, b)) for a, b in zip(*runs, strict=True)]}


def compilations(run: Run) -> Iterator[Row]:
    """Kernels compiled for 60 sizes, 4 windows and 2 dilations: must not grow with them."""
    for number in range(2 if run.dry else 60):
        spatial = (3 + number, 4) if run.dry else (7 + 3 * number, 9 + 2 * number)
        window = 2 if run.dry else (17, 13, 11, 7)[number % 4]
        output = neighborhood_attention(*run.qkv(1, *spatial, 2, 32), window, 1 + number % 2, backend="triton")
        output.sum().backward()
        if number in (1, 3, 9, 59):
            yield {"sizes": number + 1, "kernels": sum(map(len, _compiled()))}


def launch(run: Run) -> Iterator[Row]:
    """Host time of a call that the GPU does at once, us."""
    inputs = run.qkv(1, 7, 7, 1, 32)
    calls = 1 if run.dry else 300

    def forward() -> None:
        with torch.no_grad():
            neighborhood_attention(*inputs, 3, backend="triton")

    def training() -> None:
        neighborhood_attention(*inputs, 3, backend="triton").sum().backward()

    for name, function in (("forward", forward), ("forward and backward", training)):
        for _ in range(0 if run.dry else 20):
            function()
        run.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        host = (time.perf_counter() - begin) / calls
        run.synchronize()
        yield {"of": name, "us": round(host * 1e6, 1)}


def speed(run: Run) -> Iterator[Row]:
    """Forward / forward and backward, us; dense is unmasked flash attention, another result, as a yardstick."""
    for dtype in (torch.bfloat16,) if run.dry else (torch.bfloat16, torch.float32):
        where = ops.Machine(run.device, dtype)
        for case in [TINY] if run.dry else CASES:
            query, key, value, bias = ops.tensors_of(case, where)
            leaves = [x for x in (query, key, value, bias) if x is not None]
            functions, failed = {}, {}
            for name, function in ops.contestants(case, query, key, value, bias).items():
                if name == "flex" and (dtype != torch.bfloat16 or case.name not in COMPILED):
                    continue
                try:
                    torch.autograd.grad(function().float().sum(), leaves)
                    functions[name] = function
                except Exception as error:  # of a back end that is compared: the others go on
                    failed[f"{name} failed"] = _failure(error)
            row = {
                "case": case.name,
                "shape": case.shape,
                "dtype": str(dtype).removeprefix("torch."),
            }
            try:
                yield row | _speeds(case, functions, leaves, where, run) | failed
            except Exception as error:
                yield row | failed | {"failed": _failure(error)}


def _speeds(
    case: ops.Case,
    functions: dict[str, Callable[[], torch.Tensor]],
    leaves: list[torch.Tensor],
    where: ops.Machine,
    run: Run,
) -> Row:
    rate, times = ops.measure(functions, {name: leaves for name in functions}, where, 1 if run.dry else 7)
    row: Row = {"product, GFLOP/s": round(rate)}
    row |= {name: ops.show([t and t * 1e3 for t in pair]) for name, pair in times.items()}
    for name in PROFILED:
        if name in functions:
            row[f"{name}, GPU alone"], kernels = _alone(functions[name], leaves, run)
            if name == "triton":
                row["triton, by kernel"] = ", ".join(f"{kernel} {us:.0f}" for kernel, us in kernels.items()) or "-"
    device = machine(run.device)
    predicted = [cases for gpus, cases in PREDICTED.items() if any(gpu in device for gpu in gpus)]
    row["predicted, by kernel"] = next((cases[case.name] for cases in predicted if case.name in cases), "-")
    return row


PROFILED = ("natten", "triton", "dense")


def _alone(function: Callable[[], torch.Tensor], leaves: list[torch.Tensor], run: Run) -> tuple[str, dict[str, float]]:
    """Times of the kernels alone, without the host's, as the profiler has them, and of each of ours; us."""
    gradient = torch.randn_like(function())
    tasks = torch.no_grad()(function), lambda: torch.autograd.grad(function(), leaves, gradient)
    calls, times = 1 if run.dry else 10, []
    for task in tasks:
        with _profiled(run) as profile:
            for _ in range(calls):
                task()
            run.synchronize()
        events = profile.key_averages()
        times.append(sum(event.self_device_time_total for event in events) / calls)
    ours = [event for event in events if event.key.startswith("attention_")]  # of the last task, which has them all
    return ops.show(times), {
        event.key.removeprefix("attention_"): event.self_device_time_total / calls for event in ours
    }


def registers(run: Run) -> Iterator[Row]:
    """Registers and spilled words of the kernels of some cases."""
    for dtype in (torch.bfloat16,) if run.dry else (torch.bfloat16, torch.float32):
        for case in [TINY] if run.dry else [case for case in CASES if case.name in INSPECTED]:
            query, key, value, bias = ops.tensors_of(case, ops.Machine(run.device, dtype))
            output = neighborhood_attention(query, key, value, case.window, case.dilation, bias, backend="triton")
            output.float().sum().backward()
    for found in _compiled():
        for kernel in found:
            yield {
                "kernel": kernel.metadata.name,
                "registers": kernel.n_regs,
                "spilled": kernel.n_spills,
                "shared": kernel.metadata.shared,
                "warps": kernel.metadata.num_warps,
            }


INSPECTED = ("window 17", "window 7, bias", "head dim 64")


def graphs(run: Run) -> Iterator[Row]:
    """Graphs of ``torch.compile(dynamic=True)`` for several sizes, which have to be 1, and the worst difference."""
    for name in ["triton"] if run.dry else ["triton", "triton, bias", "triton, float32", "flex"]:
        row: Row = {"of": name}
        try:
            begin = time.perf_counter()
            row |= _of_graphs(name, run)
            row["seconds"] = round(time.perf_counter() - begin)
        except Exception as error:
            row["failed"] = _failure(error)
        yield row


def _of_graphs(name: str, run: Run) -> Row:
    from torch._dynamo.testing import CompileCounterWithBackend

    backend, _, kind = name.partition(", ")
    counter = CompileCounterWithBackend("aot_eager" if run.dry else "inductor")

    def attend(*inputs: torch.Tensor, backend: str) -> torch.Tensor:
        query, key, value, *bias = inputs
        return neighborhood_attention(query, key, value, 3, bias=bias[0] if bias else None, backend=backend)

    compiled = torch.compile(attend, dynamic=True, backend=counter)
    worst = 0.0
    for spatial in ((5, 4), (3, 6)) if run.dry else ((20, 24), (3, 5), (33, 20), (50, 70)):
        dtype = torch.float32 if kind == "float32" else torch.bfloat16
        inputs = run.qkv(2, *spatial, 2, 8 if run.dry else 32, dtype=dtype)
        if kind == "bias":
            inputs.append(torch.randn(2, 5, 5, device=run.device, requires_grad=True))
        found = []
        # flex is a graph of its own, without one around it
        for function in (attend if backend == "flex" else compiled, attend):
            output = function(*inputs, backend="torch" if found else backend)
            gradients = torch.autograd.grad(output.float().square().sum(), inputs)
            found.append([output.detach(), *gradients])
        worst = max(worst, *(float((a - e).abs().max() / e.abs().max()) for a, e in zip(*found, strict=True)))
    return {"graphs": "-" if backend == "flex" else counter.frame_count, "worst difference": f"{worst:.1e}"}


def training_steps(run: Run) -> Iterator[Row]:
    """Training steps with AMP and channels_last: images/s, ms of the host and of the GPU alone, launches, peak MB."""
    sizes = [(224, 64), (512, 16)]
    # what was never measured comes first, and what takes longest last
    turns = itertools.chain(
        itertools.product(["triton"], sizes, ["tiny"]),
        itertools.product(["-"], sizes, ["Swin-T", "ConvNeXt-T"]),
        itertools.product(["triton"], sizes, ["NAT-T"]),
        itertools.product(["torch"], sizes, ["tiny", "NAT-T"]),
    )
    for backend, (size, batch), name in itertools.product(["-"], [(64, 1)], ["demo", "NAT-demo"]) if run.dry else turns:
        row: Row = {"size": size, "model": name, "back end": backend}
        try:
            with use_backend(backend) if backend != "-" else contextlib.nullcontext():
                row |= _of_model(name, size, batch, run)
        except Exception as error:  # of a model that is not installed, or too large for this GPU
            row["failed"] = _failure(error)
        yield row


def _of_model(name: str, size: int, batch: int, run: Run) -> Row:
    images = torch.randn(batch, 3, size, size, device=run.device).to(memory_format=torch.channels_last)
    model = _model(name, size).to(run.device, memory_format=torch.channels_last)
    origin = type(model).__module__.partition(".")[0]
    return {"from": origin} | _of_step(functools.partial(models.step, model, images), batch, run)


WARM, STEPS, ENOUGH = 4, 12, 10.0  # steps that do not count, and all; seconds after which fewer will do


def _of_step(step: Callable[[], None], batch: int, run: Run) -> Row:
    times, host = [], []
    begin = time.perf_counter()
    while len(times) < (2 if run.dry else STEPS) and (len(times) < 2 or time.perf_counter() - begin < ENOUGH):
        run.synchronize()
        start = time.perf_counter()
        step()
        host.append(time.perf_counter() - start)
        run.synchronize()
        times.append(time.perf_counter() - start)
    counted = slice(min(WARM, len(times) - 1), None)
    row: Row = {"images/s": round(batch / statistics.median(times[counted]), 1), "steps": len(times[counted])}
    row["host, ms"] = round(statistics.median(host[counted]) * 1e3, 1)
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with _profiled(run) as profile:
        step()
        run.synchronize()
    events = [event for event in profile.key_averages() if event.self_device_time_total or run.dry]
    row["GPU, ms"] = round(sum(event.self_device_time_total for event in events) / 1e3, 1)
    row["launches"] = sum(event.count for event in events)
    row["MB"] = round(torch.cuda.max_memory_allocated() / 1e6) if run.device == "cuda" else "-"
    longest = sorted(events, key=lambda event: -event.self_device_time_total)[:8]
    row["longest, ms"] = "; ".join(f"{event.key[:40]} {event.self_device_time_total / 1e3:.1f}" for event in longest)
    return row


def _profiled(run: Run) -> torch.profiler.profile:
    activity = torch.profiler.ProfilerActivity.CPU if run.dry else torch.profiler.ProfilerActivity.CUDA
    return torch.profiler.profile(activities=[activity])


def _model(name: str, size: int) -> torch.nn.Module:
    if name.startswith("NAT-"):
        from eyetoy_mm.backbones import NAT

        tiny = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), kernel_size=3, mlp_ratio=2)
        return NAT(None, **tiny) if name == "NAT-demo" else NAT(arch="tiny", drop_path_rate=0.0)
    return models.build(name, size)


def _compiled() -> list[list[Any]]:
    """What Triton has compiled in this process, per kernel; nothing in its interpreter."""
    module = backend_triton.kernels()
    kernels = [getattr(module, name) for name in vars(module) if name.startswith("attention_")]
    return [
        [kernel for cache in getattr(function, "device_caches", {}).values() for kernel in cache[0].values()]
        for function in kernels
    ]


SECTIONS: dict[str, Callable[[Run], Iterator[Row]]] = {
    "about": about,
    "determinism": determinism,
    "models": training_steps,
    "values": values,
    "compilations": compilations,
    "graphs": graphs,
    "launch": launch,
    "speed": speed,
    "registers": registers,
}
SHARES = {"models": 4, "values": 5, "graphs": 3, "speed": 5}  # of the time; 1 of the others. What is left goes on.
LEAST = 40.0  # seconds, for what is imported and compiled


def rows_of(name: str, run: Run) -> Iterator[Row]:
    """Those of a section, in this process."""
    torch.manual_seed(0)
    with interpreted() if run.dry else contextlib.nullcontext():
        yield from SECTIONS[name](run)


def markdown(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(str(row.get(column, "")).replace("|", "/") for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(columns), "|".join(["---"] * len(columns)), *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--minutes", type=float, help="for all sections; 10 where there is a GPU")
    parser.add_argument("--into", type=Path, default=Path())
    arguments = parser.parse_args()
    if not arguments.dry and not torch.cuda.is_available():
        parser.error("there is no GPU that PyTorch can use here; --dry runs every line once, on a CPU")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the process of a section, too
    arguments.into.mkdir(parents=True, exist_ok=True)
    run = Run("cpu" if arguments.dry else "cuda", arguments.dry)
    end = time.monotonic() + 60 * (arguments.minutes or (60 if run.dry else 10))
    found: dict[str, list[Row]] = {}
    pages = ["# " + ("dry: no figure means anything" if run.dry else "What a GPU says")]
    for number, name in enumerate(arguments.only):
        share = SHARES.get(name, 1) / sum(SHARES.get(other, 1) for other in arguments.only[number:])
        rows = found[name] = []
        pages.append("")
        begin = time.monotonic()
        for row in _rows_or_why_not(name, run, max(LEAST, (end - begin) * share)):
            rows.append(row)
            print(name, row, flush=True)
            took = f"{SECTIONS[name].__doc__} ({time.monotonic() - begin:.0f} s)"
            pages[-1] = f"## {name}\n\n{took}\n\n{markdown(rows)}"
            # after each row, so that what is found is not lost
            (arguments.into / "gpu_check.json").write_text(json.dumps(found, indent=1, default=str))
            (arguments.into / "gpu_check.md").write_text("\n\n".join(pages) + "\n")
    failed = [name for name in arguments.only if any("failed" in row for row in found[name])]
    parser.exit(1 if failed else 0, f"failed: {', '.join(failed)}\n" if failed else "")


def _rows_or_why_not(name: str, run: Run, seconds: float) -> Iterator[Row]:
    try:
        yield from yielded(functools.partial(rows_of, name, run), seconds)
    except (RuntimeError, TimeoutError) as error:  # the next ones are still worth something
        yield {"failed": in_one_line(error)}


if __name__ == "__main__":
    main()
