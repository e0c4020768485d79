from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import eyetoy_mm

ROOT = Path(eyetoy_mm.__file__).parents[1]


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs code in a fresh interpreter, with `path` before the repository on sys.path; returns what it prints."""

    def run(code: str, *path: Path | str) -> str:
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (*path, ROOT))))
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
