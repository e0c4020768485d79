"""What the benchmarks share: peak memory of a process of its own, fitted exponents, cells of a table."""

from __future__ import annotations

import ctypes
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def machine(device: str) -> str:
    """Name of what it runs on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return f"{models[0].split(':')[1].strip()}, {torch.backends.cpu.get_cpu_capability()}"


def in_own_process(file: str, arguments: list[str], task: object, python: str = sys.executable) -> object:
    """Run ``file --worker TASK`` and read the JSON that it prints."""
    command = [python, file, *arguments, "--worker", json.dumps(task)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def peak_memory(function: Callable[[], object], device: str = "cpu") -> int:
    """Bytes at the peak of a call beyond those held before it. On a CPU of the whole process, and on Linux alone."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be used again, and not be seen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of the line through the logarithms: 1 where values grow with sizes."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope


def show(numbers: list[float | None] | None, digits: int = 1) -> str:
    """Numbers of one cell, ``-`` for those that are not there."""
    cells = ["-" if x is None else f"{x:.{digits}f}" if x < 100 else f"{x:.0f}" for x in numbers or [None]]
    return " / ".join(cells)


def header(*columns: str) -> None:
    """Begin a markdown table."""
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)


def row(*cells: str) -> None:
    """A line of it."""
    print(f"| {' | '.join(cells)} |", flush=True)
