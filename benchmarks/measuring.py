"""What the benchmarks share: processes of their own, fitted exponents, cells of a table."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys

from eyetoy_mm.engine.measuring import machine, peak_memory

__all__ = ["exponent", "header", "in_own_process", "machine", "peak_memory", "row", "show"]


def in_own_process(file: str, arguments: list[str], task: object, python: str = sys.executable) -> object:
    """Run ``file --worker TASK`` and read the JSON that it prints."""
    command = [python, file, *arguments, "--worker", json.dumps(task)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


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
