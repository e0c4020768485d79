"""What a shell is told that may come next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete", reason="argcomplete is not installed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eyetoy in", {"infer"}),
        ("eyetoy infer --save-", {"--save-json", "--save-masks", "--save-txt", "--save-crops"}),
        ("eyetoy test eyetoy_mm::upernet_eye", {"eyetoy_mm::upernet_eyetoy_ade20k"}),
    ],
)
def test_completion(line, expected, tmp_path):
    answer = tmp_path / "answer"
    asked = dict(_ARGCOMPLETE="1", _ARGCOMPLETE_IFS="\n", _ARGCOMPLETE_STDOUT_FILENAME=str(answer))
    asked |= dict(COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE="9")
    code = "from eyetoy_mm.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **asked}, timeout=300)
    assert {word.strip() for word in answer.read_text().splitlines()} >= expected
    assert all(word.startswith(line.split()[-1]) for word in answer.read_text().split())
