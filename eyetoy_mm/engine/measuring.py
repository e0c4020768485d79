"""What measurements share: names and cores of machines, memory at the peak, and turns that models take."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)

_TOUCHED = 2**24  # bytes that are touched to see whether the kernel counts them


def machine(device: str) -> str:
    """Name of what it runs on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'CPU'}, {torch.backends.cpu.get_cpu_capability()}"


def usable_cores() -> int:
    """CPU cores that this process may run on; a container's share counts."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return affinity
    return affinity if quota == "max" else max(1, min(affinity, int(quota) // int(period)))


def take_turns(tasks: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Run every task once in each round, so that all meet the same disturbances.

    Args:
        tasks: Each runs once and returns the seconds that it took.
        rounds: Besides the first, which warms up and does not count.

    Returns:
        Seconds of each task, by round.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            took = task()
            if number:
                seconds[name].append(took)
    return seconds


def peak_memory(function: Callable[[], object], device: str = "cpu") -> int:
    """Bytes at the peak of a call beyond those held before it. On a CPU of the whole process, and on Linux alone."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    before = resident_memory()
    reset_peak()
    function()
    return peak_resident_memory() - before


def can_see_memory() -> bool:
    """Whether the functions below work here: tried, since not every kernel of Linux keeps a mark of the peak."""
    if sys.platform != "linux":
        return False
    try:
        before = resident_memory()
        reset_peak()
        with mmap.mmap(-1, _TOUCHED) as memory:
            memory.write(bytes(_TOUCHED))
        return peak_resident_memory() - before > _TOUCHED // 2
    except (OSError, LookupError):  # no such file, no such line
        return False


def resident_memory() -> int:
    """Bytes of this process in memory, after what was freed is given back: else it would be used again, unseen.

    Garbage too: collected later, it would make room that is taken unseen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def reset_peak() -> None:
    """Let the peak of :func:`peak_resident_memory` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_resident_memory() -> int:
    """Bytes of this process in memory at most, since :func:`reset_peak`."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}[f"{key}:"]
