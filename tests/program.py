"""The program as users call it, in processes of their own that start in a moment.

They are forked from one that has imported PyTorch and the toolboxes, and done nothing else: importing them takes many
times as long as what a test asks of the program. What a test says of imports needs a fresh interpreter instead.
"""

import gc
import importlib.util
import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

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


def run_code(code: str, *arguments: object, **options: Any) -> CompletedProcess[str]:
    """Run code as ``python -c`` does; the arguments are those of :func:`start`."""
    script = Path(tempfile.mkdtemp(prefix="program-"), "code.py")
    script.write_text(code)
    return run(str(script), *arguments, **options)


def _run(script: str, arguments: list[str], cwd: str, env: dict[str, str], folder: str) -> None:
    gc.freeze()  # what all processes share: a collection of garbage would go through it, and copy it
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with open(Path(folder, name), "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *arguments]
    if importlib.util.find_spec("mmengine"):
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from mmengine.config import config

        # How a config is laid out in a log, and a picture of the run: seconds of each. What tests look at is neither.
        config.FormatCode = lambda text, **style: (text, True)
        ConstrainedLayoutEngine.execute = lambda self, figure: None
    runpy.run_path(script, run_name="__main__")


if __name__ == "__call__":
    _run(*CALL)  # type: ignore[name-defined]  # noqa: F821
