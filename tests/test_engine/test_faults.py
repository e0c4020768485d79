"""The short form of benchmarks/faults.py: real trainings that are killed, and go on as if they had not been."""

import json
import sys

import pytest

from tests import program

pytest.importorskip("mmengine")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of another process's files")
def test_killed_runs_are_not_lost(tmp_path):
    """A kill at a random moment, the work dir moved after it, and one inside the writing of a checkpoint."""
    rows = tmp_path / "rows"
    arguments = ["moved", "write", "--plays", "1", "--side", "ours", "--rows", rows]
    done = program.run("benchmarks/faults.py", *arguments, env=dict(OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr
    played = {row["fault"]: row["row"]["outcomes"] for row in map(json.loads, rows.read_text().splitlines())}
    assert played.keys() == {"moved", "write"}
    assert all(each["exact"] and not each["lost"] for (each,) in played.values()), played
