"""A generator that runs in a process of its own: what breaks there, or never ends, takes nothing else with it.

Nothing but Python itself is needed here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


def yielded(generate: Callable[[], Iterator[Any]], seconds: float) -> Iterator[Any]:
    """What a generator yields in another process, as soon as it does.

    Args:
        generate: Makes the generator; it is pickled, and so is what it yields.
        seconds: After these the process is ended, with all that it has started.

    Raises:
        TimeoutError: It was.
        RuntimeError: The generator raised something, or its process died; the message is one line.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(generate, sender))
    process.start()
    sender.close()  # so that the end of the process ends the pipe
    end = time.monotonic() + seconds
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            try:
                kind, content = receiver.recv()
            except EOFError:
                process.join(5)
                raise RuntimeError(f"its process died, with exit code {process.exitcode}") from None
            if kind == "failed":
                raise RuntimeError(content)
            if kind == "end":
                return
            yield content
        raise TimeoutError(f"stopped after {seconds:.0f} s")
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        receiver.close()


def _send_all(generate: Callable[[], Iterator[Any]], sender: Connection) -> None:
    os.setpgid(0, 0)  # with its own processes a group, which is ended as one
    try:
        for content in generate():
            sender.send(("one", content))
        sender.send(("end", None))
    except Exception as error:
        traceback.print_exc()
        sender.send(("failed", in_one_line(error)))


def in_one_line(error: Exception) -> str:
    """Its type, and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
