"""Every command of docs/cluster.md runs, up to the program that it calls; Slurm's and MPI's with stand-ins."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from eyetoy_mm.cli import parse

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/cluster.md").read_text()
LINES = [line.strip() for line in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)]
SETTINGS = [line for line in LINES if re.match(r"[A-Z]+=\S+$", line)]
COMMANDS = [line for line in LINES if line not in SETTINGS]
# What each prints: its arguments; `sbatch` runs the script as Slurm would, with one task, and `mpirun` the program.
STAND_INS = {
    "python": 'echo "python $*"',
    "eyetoy": 'echo "eyetoy $*"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; echo "srun $*"',
    "mpirun": 'shift 2; exec "$@"',
    "sbatch": 'while [[ $1 == --* ]]; do shift; done; SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=7 exec "$@"',
}


@pytest.fixture
def stand_ins(tmp_path):
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    without = {"PYTHON", "NNODES", "MASTER_ADDR", "MASTER_PORT", "MAX_RESTARTS", "NODE_RANK"}
    kept = {key: value for key, value in os.environ.items() if key not in without}
    return kept | dict(PATH=f"{tmp_path}:{os.environ['PATH']}")


def test_the_page_has_commands_of_each_kind():
    assert len(SETTINGS) == 2 and len(COMMANDS) > 15
    text = "\n".join(COMMANDS)
    for program in (
        "dist_train.sh",
        "dist_test.sh",
        "sbatch",
        "srun",
        "mpirun",
        "NNODES",
        "eyetoy pack",
        "analyze_logs",
    ):
        assert program in text


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, stand_ins):
    script = "\n".join([*SETTINGS, command])
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, env=stand_ins, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (printed,) = done.stdout.splitlines()
    words = shlex.split(printed)
    if "torch.distributed.run" in printed:
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(words[words.index("torch.distributed.run") + 1 :])
        assert f" {parsed.nproc_per_node}" in command and parsed.nproc_per_node.isdecimal()
        program, arguments = parsed.training_script, parsed.training_script_args
        assert arguments[arguments.index("--launcher") + 1] == "pytorch"
    elif "tools/" in printed:
        place = next(index for index, word in enumerate(words) if word.startswith("tools/"))
        program, arguments = words[place], words[place + 1 :]
    else:
        program, arguments = words[1], words[2:]
    verb = Path(program).stem.replace("_", "-")
    parsed = parse([verb, *arguments])  # ends the process where it knows an argument not
    if hasattr(parsed, "config"):
        assert (ROOT / parsed.config).is_file() and "$" not in printed
    if "mpi" in command or "slurm" in command:
        assert parsed.launcher == ("mpi" if "mpi" in command else "slurm")


def test_pages_lead_to_each_other():
    """Pages of the project, and headings in them."""
    for page in ("cluster.md", "scale.md"):
        for link in re.findall(r"\]\(([^)#:]+\.md)", (ROOT / "docs" / page).read_text()):
            assert (ROOT / "docs" / link).is_file() or link in ("engines.md", "faults.md"), link
