from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
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


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves tmp_path; downloads go to another directory in it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()
