"""The program as users call it, in processes of their own that start in a moment.

They are forked from one that has imported PyTorch and the toolboxes, and done nothing else: importing them takes many
times as long as what a test asks of the program. What a test says of imports needs a fresh interpreter instead.
"""

import importlib.util
import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_TOOLBOXES = [f"{name}.apis" for name in ("mmdet", "mmseg", "mmpretrain") if importlib.util.find_spec(name)]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "cv2", "eyetoy_mm.engine.launch", "eyetoy_mm.engine.inference", *_TOOLBOXES])


class Started(NamedTuple):
    """A running process, and the files with what it writes."""

    process: ForkServerProcess
    stdout: Path
    stderr: Path


def start(script: str, *arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Started:
    """Start a Python file of the checkout.

    Args:
        script: Its path from the root.
        arguments: Of its command line.
        cwd: The folder in which it runs.
        env: What it has in its environment besides.
    """
    folder = Path(tempfile.mkdtemp(prefix="program-"))
    call = (str(ROOT / script), [*map(str, arguments)], str(cwd), {**os.environ, **(env or {})}, str(folder))
    # By its path: another package called `tests` may be installed.
    process = _CONTEXT.Process(target=runpy.run_path, args=(__file__, dict(CALL=call), "__call__"))
    started = Started(process, folder / "stdout", folder / "stderr")
    started.process.start()
    return started


def run(script: str, *arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    """Run a Python file of the checkout to its end; the arguments are those of :func:`start`."""
    process, stdout, stderr = start(script, *arguments, cwd=cwd, env=env)
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{script} {arguments} did not end in 300 s: {stderr.read_text()}")
    return CompletedProcess([script, *map(str, arguments)], process.exitcode, stdout.read_text(), stderr.read_text())


def _run(script: str, arguments: list[str], cwd: str, env: dict[str, str], folder: str) -> None:
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with open(Path(folder, name), "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *arguments]
    if importlib.util.find_spec("mmengine"):
        from mmengine.config import config

        config.FormatCode = lambda text, **style: (text, True)  # yapf takes seconds for each config
    runpy.run_path(script, run_name="__main__")


if __name__ == "__call__":
    _run(*CALL)  # type: ignore[name-defined]  # noqa: F821
