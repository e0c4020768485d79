"""Processes that work together: found in the environment of each launcher, and joined on CPUs."""

import json
import os
import re
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from eyetoy_mm.engine.distributed import Place, first_host, joined, place_of
from eyetoy_mm.errors import UserError
from tests import program

ROOT = Path(__file__).parents[2]
DEMO = "configs/sample/upernet_eyetoy-demo_sample.py"
SLURM = dict(SLURM_PROCID="5", SLURM_NTASKS="16", SLURM_LOCALID="1", SLURM_NODELIST="gpu[07-08]", SLURM_JOB_ID="42")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node[003-005,9],x", "node003"),
        ("x,node[003-005]", "x"),
        ("rack[1-2]-node[01-16]", "rack1-node01"),
        ("gpu[7,9-12]-ib", "gpu7-ib"),
        ("a.b-c[12]", "a.b-c12"),
    ],
)
def test_first_host_as_scontrol_says(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("launcher", "environment", "place"),
    [
        (
            "pytorch",
            dict(RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", MASTER_ADDR="h", MASTER_PORT="123"),
            Place(3, 4, 1, "h", 123),
        ),
        ("slurm", SLURM, Place(5, 16, 1, "gpu07", 20000 + 42 * 7)),
        ("slurm", SLURM | dict(SLURM_STEP_NODELIST="gpu08"), Place(5, 16, 1, "gpu08", 20000 + 42 * 7)),
        ("slurm", SLURM | dict(MASTER_ADDR="a", MASTER_PORT="9"), Place(5, 16, 1, "a", 9)),
        ("slurm", SLURM | dict(MASTER_ADDR="", MASTER_PORT=""), Place(5, 16, 1, "gpu07", 20294)),  # exported, and empty
        ("slurm", SLURM | dict(SLURM_NODELIST="", SLURM_JOB_NODELIST="b1,b2"), Place(5, 16, 1, "b1", 20294)),
        (
            "mpi",
            {f"OMPI_COMM_WORLD_{name}": value for name, value in
             dict(RANK="2", SIZE="3", LOCAL_RANK="2", LOCAL_SIZE="3").items()},
            Place(2, 3, 2, "127.0.0.1", 29500),
        ),
        (
            "mpi",
            dict(PMI_RANK="2", PMI_SIZE="4", MPI_LOCALRANKID="0", MPI_LOCALNRANKS="2", MASTER_ADDR="h"),
            Place(2, 4, 0, "h", 29500),
        ),
        (
            "mpi",
            dict(PMI_RANK="2", PMI_SIZE="4", PMI_LOCAL_RANK="1", MASTER_ADDR="h", MASTER_PORT="77"),
            Place(2, 4, 1, "h", 77),
        ),
    ],
)  # fmt: skip
def test_each_launcher(launcher, environment, place):
    assert place_of(launcher, environment) == place


@pytest.mark.parametrize(
    ("launcher", "environment", "message"),
    [
        ("pytorch", {}, "needs RANK in the environment, which is not set; start it with torchrun"),
        ("pytorch", dict(RANK="x"), "needs a number in RANK, which is 'x'"),
        ("slurm", {}, "needs SLURM_PROCID .* start it with srun"),
        ("slurm", {key: SLURM[key] for key in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")}, "SLURM_NODELIST"),
        ("slurm", SLURM | dict(SLURM_NTASKS="5"), "process 5 of 5, which are numbered from 0"),
        ("slurm", SLURM | dict(MASTER_PORT="77777"), "MASTER_PORT is a number from 1 to 65535, not 77777"),
        ("mpi", {}, "OMPI_COMM_WORLD_RANK.*none are all set; start it with mpirun"),
        ("mpi", dict(PMI_RANK="2", PMI_SIZE="4", PMI_LOCAL_RANK="1"), "needs MASTER_ADDR.*several hosts"),
    ],
)
def test_what_is_missing_is_named(launcher, environment, message):
    with pytest.raises(UserError, match=message):
        place_of(launcher, environment)


def test_processes_of_torchrun_that_would_not_join_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="torchrun has started 4 processes.*--launcher pytorch"), joined(Config()):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined(Config()):
        pass


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_two_processes_train_and_evaluate_as_one_does(tmp_path):
    """Uneven data: three images for two processes. The processes of an MPI, whose numbers are not torchrun's."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    options = [
        "train_dataloader.dataset.pipeline.3.crop_size=(64,64)", "model.data_preprocessor.size=(64,64)",
        "train_dataloader.batch_size=2", "train_cfg.max_iters=1", "train_cfg.val_interval=1", "custom_hooks=[]",
        "model.decode_head.norm_cfg.type=SyncBN",
    ]  # fmt: skip
    for split in ("train", "val", "test"):
        options += [f"{split}_dataloader.num_workers=0", f"{split}_dataloader.persistent_workers=False"]
    options += ["val_dataloader.dataset.indices=3", "test_dataloader.dataset.indices=3"]

    environment, port = dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_LOCAL_SIZE="2"), free_port()
    started = []
    for rank in ("0", "1"):
        env = environment | dict(OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_LOCAL_RANK=rank, MASTER_PORT=port)
        arguments = ["tools/train.py", DEMO, "--launcher", "mpi", "--dist-timeout", "100", "--work-dir", tmp_path / "2"]
        started.append(program.start(*arguments, "--cfg-options", *options, env=env))
    for process, _, stderr in started:
        process.join(300)
        assert process.exitcode == 0, stderr.read_text()
    assert "2 processes with gloo, process 0 at 127.0.0.1" in started[0].stdout.read_text()

    checkpoint = tmp_path / "2/iter_1.pth"
    arguments = ["tools/test.py", DEMO, checkpoint, "--work-dir", tmp_path / "1", "--cfg-options", *options]
    done = program.run(*arguments)
    assert done.returncode == 0, done.stderr
    (together,) = metrics(tmp_path / "2", "*/vis_data/scalars.json")
    (alone,) = metrics(tmp_path / "1", "*/*.json")
    assert alone == together


def metrics(folder: Path, pattern: str) -> list[dict]:
    records = [json.loads(line) for log in folder.glob(pattern) for line in log.read_text().splitlines()]
    return [{key: r[key] for key in ("aAcc", "mIoU", "mAcc")} for r in records if "mIoU" in r]


STAND_IN = """#!/bin/sh
echo "$@"
exit ${STATUS:-0}
"""


@pytest.fixture
def stand_ins(tmp_path):
    """Programs that print their arguments, in place of Python, srun and scontrol."""
    for name in ("python", "srun", "scontrol"):
        (tmp_path / name).write_text(STAND_IN.replace("echo", f"echo {name}"))
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def script(name: str, *arguments: str, env: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "tools" / name, *arguments], env=env | more, capture_output=True, text=True)


def test_scripts_call_torchrun(stand_ins):
    done = script("dist_train.sh", "c.py", "8", "--amp", env=stand_ins)
    assert re.fullmatch(
        r"python -m torch.distributed.run --standalone --nproc_per_node 8 --max_restarts 0 \S*tools/train.py c.py "
        r"--launcher pytorch --amp\n",
        done.stdout,
    ), done
    several = dict(NNODES="2", MASTER_ADDR="h0", MAX_RESTARTS="3")
    done = script("dist_test.sh", "c.py", "w.pth", "4", env=stand_ins, **several)
    assert "--nnodes 2 --rdzv_backend c10d --rdzv_id eyetoy --rdzv_endpoint h0:29500" in done.stdout
    assert re.search(r"--max_restarts 3 \S*tools/test.py c.py --launcher pytorch w.pth\n", done.stdout)
    assert (
        script("dist_train.sh", "c.py", "many", env=stand_ins).stderr == "NPROC is a number of processes, not 'many'\n"
    )
    assert "the host of the first node" in script("dist_train.sh", "c.py", "2", env=stand_ins, NNODES="2").stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_scripts_say_that_they_were_told_to_stop(number, stand_ins):
    """torchrun's status is 1 then, and USR1 ends it at once: it is sent a TERM for both."""
    python = Path(stand_ins["PATH"].split(":")[0], "python")
    python.write_text(
        "#!/bin/bash\ntrap 'echo stopped; exit 1' TERM\necho started\nfor i in {1..200}; do sleep 0.1; done\n"
    )
    command = [ROOT / "tools/dist_train.sh", "c.py", "2"]
    with subprocess.Popen(command, env=stand_ins, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 85


def test_an_interrupt_from_a_terminal_is_one_more_way_to_tell(stand_ins):
    """It goes to all processes of the script; torchrun would end its workers with it, and they would not save."""
    python = Path(stand_ins["PATH"].split(":")[0], "python")
    python.write_text(
        "#!/bin/bash\ntrap 'echo stopped; exit 1' TERM\necho $PET_SIGNALS_TO_HANDLE\n"
        "for i in {1..200}; do sleep 0.1; done\n"
    )
    command = [ROOT / "tools/dist_train.sh", "c.py", "2"]
    pipe = subprocess.PIPE
    # a suite that runs in the background ignores it, and what it starts cannot trap it then
    caught = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, env=stand_ins, stdout=pipe, text=True, start_new_session=True, preexec_fn=caught
    ) as process:
        assert "SIGINT" not in process.stdout.readline().split(",")
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 85


def test_slurm_script_queues_what_was_told_to_stop_again(stand_ins):
    stand_ins = stand_ins | dict(SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))
    done = script("slurm_train.sh", "c.py", "--amp", env=stand_ins)
    called = "srun --kill-on-bad-exit=1 python tools/train.py c.py --launcher slurm --resume --amp\n"
    assert (done.returncode, done.stdout) == (0, called)
    failed = script("slurm_train.sh", "c.py", env=stand_ins, STATUS="1")
    assert failed.returncode == 1 and "requeue" not in failed.stdout
    stand_in = Path(stand_ins["PATH"].split(":")[0])
    (stand_in / "scontrol").write_text("#!/bin/sh\necho scontrol $@\n")
    for status in ("85", str(128 + signal.SIGUSR1)):  # saved; told before there was anything to save
        stopped = script("slurm_train.sh", "c.py", env=stand_ins, STATUS=status)
        assert stopped.returncode == 0 and stopped.stdout.endswith("scontrol requeue 7\n")


def test_scripts_are_shell_that_parses():
    for path in (ROOT / "tools").glob("*.sh"):
        assert subprocess.run(["bash", "-n", path]).returncode == 0 and os.access(path, os.X_OK)
