"""Sections of benchmarks/gpu_check.py run apart from each other: what is lost is what a section had not yet yielded."""

import functools
import importlib
import os
import time
from pathlib import Path

import pytest

ROWS = """
import os, subprocess, sys, time

def rows(how, pid_of_child=None):
    yield "first"
    if how == "raises":
        raise ValueError("no memory\\nleft")
    if how == "dies":
        os._exit(7)
    if how == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        pid_of_child.write_text(str(child.pid))
        time.sleep(60)
    yield os.getpid()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A generator elsewhere: of a kind, a time and more arguments."""
    (tmp_path / "some_rows.py").write_text(ROWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    own_process, some_rows = map(importlib.import_module, ("own_process", "some_rows"))
    return lambda how, seconds, *more: own_process.yielded(functools.partial(some_rows.rows, how, *more), seconds)


def test_gives_what_is_yielded_elsewhere(start):
    first, pid = start("ends", 60)
    assert first == "first" and pid != os.getpid()


@pytest.mark.parametrize(
    ("how", "message"), [("raises", "^ValueError: no memory$"), ("dies", "its process died, with exit code 7")]
)
def test_says_why_it_ended_before_its_time(start, how, message):
    found = start(how, 60)
    assert next(found) == "first"
    with pytest.raises(RuntimeError, match=message):
        next(found)


def test_ends_what_takes_too_long_with_all_that_it_started(start, tmp_path):
    found = start("hangs", 3, tmp_path / "pid")
    assert next(found) == "first"
    with pytest.raises(TimeoutError, match="stopped after 3 s"):
        next(found)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
