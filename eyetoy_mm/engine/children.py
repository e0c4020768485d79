"""Programs that this one starts and that end with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_PATIENCE = 60  # seconds that a program has to save and leave


def run_child(command: list[str], output: Path) -> int:
    """Run a program to its end, or to that of this process: then it gets a SIGTERM, and some time to save.

    Args:
        command: The program and its arguments.
        output: File for what it writes; added to what is there.

    Returns:
        Its exit code.
    """
    with open(output, "ab") as file, _raised_when_terminated():
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        with ended(process):
            return process.wait()


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """Within: what ends this, as Ctrl-C does, ends a process, too, which has some time to save, and is waited for."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=_PATIENCE)  # it may write into a pipe
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextmanager
def _raised_when_terminated() -> Iterator[None]:
    """Within: a SIGTERM ends this process by an exception, and so what it has started."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
