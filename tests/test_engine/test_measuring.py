"""Memory at the peak, turns, and cores."""

import gc
from pathlib import Path

import numpy as np
import pytest

from eyetoy_mm.engine import measuring
from eyetoy_mm.engine.measuring import can_see_memory, peak_memory, take_turns, usable_cores


@pytest.fixture
def watched():
    if not can_see_memory():
        pytest.skip("the kernel does not count the peak of this process")


def test_the_peak_is_that_of_the_call(watched):
    def allocate():
        for _ in range(3):
            np.ones(2**22)  # 32 MB, and freed

    assert 30e6 < peak_memory(allocate) < 60e6


def test_garbage_from_before_makes_no_room(watched):
    def allocate():
        gc.collect()
        np.ones(2**22)

    garbage = [np.ones(2**24)]
    garbage.append(garbage)
    del garbage
    assert 30e6 < peak_memory(allocate) < 60e6


def test_a_kernel_that_does_not_count_is_seen(monkeypatch):
    monkeypatch.setattr(measuring, "peak_resident_memory", measuring.resident_memory)  # a mark that stands still
    assert not can_see_memory()


@pytest.mark.parametrize("status", ["VmRSS:\t10 kB\n", ""])
def test_a_kernel_without_a_mark_is_seen(status, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: status)
    assert not can_see_memory()


def test_every_model_has_a_turn_in_each_round():
    order = []

    def task(name, seconds):
        order.append(name)
        return seconds.pop(0)

    times = {"a": [9.0, 1.0, 2.0], "b": [9.0, 3.0, 4.0]}
    tasks = {name: lambda name=name, seconds=seconds: task(name, seconds) for name, seconds in times.items()}
    assert take_turns(tasks, rounds=2) == {"a": [1.0, 2.0], "b": [3.0, 4.0]}  # the first warms up
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_a_share_of_a_machine_is_what_can_be_used(quota, cores, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: quota)
    assert usable_cores() == cores
