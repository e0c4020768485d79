"""Faults and what becomes of the run: kills, signals, disks and hosts, played on real trainings.

    python benchmarks/faults.py                           # all of them, most of an hour on two busy cores
    python benchmarks/faults.py kill write --plays 5      # some, with less plays
    python benchmarks/faults.py --into docs/faults.md

A training of 96 steps, with workers, augmentation, dropout, clipping, a schedule and averaged weights, runs through
``tools/train.py`` or ``tools/dist_train.sh`` and beside it through mmengine's plain Runner in an interpreter without
this package. A fault is played at a random moment; the run is started again as a user would, with ``--resume``. It is
lost where it does not end then, or starts again at step 1 although it had saved. It is exact where every loss of every
attempt, and the weights at the end, are bit for bit those of an uninterrupted run. Exit code 1 where one of ours is
lost or not exact.

Linux. Disks and hosts need root (mount, network namespaces); without it they are skipped, and the table says so.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
sys.path[:0] = [str(ROOT), str(HERE)]

SIDES = ("ours", "mmengine")
ALONE = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
LIMIT = 300  # seconds, for any one attempt


class Skipped(Exception):
    """This machine cannot play a fault; the message says why."""


class Missed(Exception):
    """The run had ended before the fault came."""


@dataclass
class Outcome:
    """What became of a run.

    Args:
        lost: It did not end, or began at 1 again.
        exact: Its losses and weights are those of the uninterrupted run.
        repeated: Steps that were done more than once.
        why: What it ended with.
    """

    lost: bool
    exact: bool
    repeated: int
    why: str = ""


@dataclass
class Row:
    """All plays of a fault on one side."""

    outcomes: list[Outcome] = field(default_factory=list)
    skipped: str = ""


# --- Trainings --------------------------------------------------------------------------------------------------------


class Attempt:
    """One start of a training: a child of this process, or a script."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self.log = process, log

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self.process.pid

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def status(self) -> int | None:
        """Its exit status; None as long as it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def end(self, seconds: float = LIMIT) -> int:
        """Wait for its end; one that takes too long is killed, and counts as failed."""
        until = time.monotonic() + seconds
        while self.status is None and time.monotonic() < until:
            time.sleep(0.01)
        if self.status is None:
            kill_tree(self.pid)
            self.process.wait() if isinstance(self.process, subprocess.Popen) else self.process.join()
            return -99
        return int(self.status)

    def last_words(self) -> str:
        """The last line that it wrote, shortened."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[-200:] if lines else ""


class Training:
    """A training in a folder of its own.

    Args:
        side: ``ours`` or ``mmengine``.
        folder: For config, record and logs; the work dir is in it unless said otherwise.
        kind: A config of fault_training.
        options: Changes to it.
        processes: 1 in a forked process; more through torchrun.
        lines: More lines of the config.
    """

    def __init__(
        self,
        side: str,
        folder: Path,
        kind: str = "iterations",
        options: Sequence[str] = (),
        processes: int = 1,
        lines: str = "",
    ) -> None:
        from fault_training import CONFIGS

        folder.mkdir(parents=True, exist_ok=True)
        self.side, self.folder, self.options, self.processes = side, folder, list(options), processes
        self.kind, self.lines = kind, lines
        self.config = folder / "config.py"
        self.config.write_text(CONFIGS[kind] + lines)
        self.record, self.work_dir = folder / "record", folder / "run"
        self.attempts: list[Attempt] = []

    def arguments(self, resume: bool) -> list[str]:
        """Of the training's command line."""
        options = self.options + (ALONE if self.processes > 1 else [])
        changed = ["--cfg-options", *options] if options else []
        return ["--work-dir", str(self.work_dir), *(["--resume"] if resume else []), *changed]

    def environment(self) -> dict[str, str]:
        """Of its processes."""
        mine = dict(FAULTS_RECORD=str(self.record), OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT}:{HERE}")
        if self.side == "mmengine":  # it cannot read its own checkpoints with PyTorch 2.6 or later; users set this
            mine["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        return mine

    def start(self, resume: bool = False) -> Attempt:
        """Start it."""
        log = self.folder / f"attempt{len(self.attempts)}.log"
        if self.processes > 1:
            attempt = self.start_script(["tools/dist_train.sh"], log, resume)
        else:
            arguments = [str(self.config), *self.arguments(resume)]
            process = multiprocessing.get_context("fork").Process(
                target=_forked, args=(self.side, arguments, self.environment(), log)
            )
            process.start()
            attempt = Attempt(process, log)
        self.attempts.append(attempt)
        return attempt

    def start_script(
        self, script: Sequence[str], log: Path, resume: bool, prefix: Sequence[str] = (), **environment: str
    ) -> Attempt:
        """Start tools/dist_train.sh."""
        command = [*prefix, *script, str(self.config), str(self.processes), *self.arguments(resume)]
        env = os.environ | self.environment() | dict(PYTHON=sys.executable)
        with open(log, "w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, env=env | environment, start_new_session=True
            )
        return Attempt(process, log)

    def steps(self) -> list[tuple[int, int, int, str]]:
        """What was recorded: rank, process, step, loss."""
        with suppress(FileNotFoundError):
            lines = self.record.read_text().splitlines()
            return [(int(a), int(b), int(c), d) for a, b, c, d in map(str.split, lines)]
        return []

    def evaluations(self) -> list[str]:
        """What was recorded of them: the step as each begins, step and metric as it ends."""
        from fault_training import EVALUATIONS

        with suppress(FileNotFoundError):
            return Path(f"{self.record}{EVALUATIONS}").read_text().splitlines()
        return []

    def wait_for(self, step: int, attempt: Attempt, rank: int = 0, after: int = 0) -> bool:
        """Wait until a process has done a step, in what was recorded after so many lines; False if the run ended."""
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            if any(r == rank and s >= step for r, _, s, _ in self.steps()[after:]):
                return True
            if attempt.status is not None:
                return False
            time.sleep(0.002)
        return False

    def had_saved(self) -> bool:
        """Whether a checkpoint was written."""
        return (self.work_dir / "last_checkpoint").is_file()


def _forked(side: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # see `in_write`
    heed_rights()
    os.chdir(ROOT)
    if side == "ours":
        sys.argv = ["tools/train.py", *arguments]
        runpy.run_path("tools/train.py", run_name="__main__")
    else:
        from fault_training import train

        train(arguments)


def heed_rights() -> None:
    """Have this process, root's too, heed the rights of files: it gives CAP_DAC_OVERRIDE away."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for which in range(2):  # effective, permitted
        sets[which] &= ~0b10
    assert libc.capset(header, sets) == 0


def kill_tree(pid: int) -> None:
    """SIGKILL to a process that we started and to its descendants."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            kill_tree(int(child))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# --- What became of it ------------------------------------------------------------------------------------------------


class Reference:
    """Uninterrupted runs, one for each side and setting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple, Training] = {}

    def of(self, training: Training) -> Training:
        """The uninterrupted run of the same training."""
        key = (training.side, training.kind, training.processes, training.lines, *training.options)
        if key not in self.known:
            whole = Training(
                training.side, self.folder / f"reference{len(self.known)}", training.kind, training.options,
                training.processes, training.lines,
            )  # fmt: skip
            status = whole.start().end()
            if status:
                raise RuntimeError(f"the uninterrupted run ends with {status}: {whole.attempts[0].last_words()}")
            self.known[key] = whole
        return self.known[key]


def weights(training: Training) -> dict[str, Any] | None:
    """The weights that a finished training leaves, averaged ones besides."""
    import torch
    from fault_training import STEPS

    names = [f"iter_{STEPS}.pth", f"epoch_{STEPS // 12}.pth"]
    path = next((training.work_dir / name for name in names if (training.work_dir / name).is_file()), None)
    if path is None:
        return None
    saved = torch.load(path, map_location="cpu", weights_only=False)
    return {**saved["state_dict"], **{f"ema.{key}": x for key, x in saved["ema_state_dict"].items()}}


def same(weights: dict[str, Any], others: dict[str, Any] | None) -> bool:
    """Whether weights are equal, bit for bit."""
    import torch

    return (
        others is not None
        and weights.keys() == others.keys()
        and all(torch.equal(weights[key], others[key]) for key in weights)
    )


def judge(training: Training, references: Reference, status: int, began_again: bool) -> Outcome:
    """Compare a training that was interrupted and started again with the uninterrupted one."""
    from fault_training import STEPS

    done = [(step, loss) for rank, _, step, loss in training.steps() if rank == 0]
    whole = {step: loss for rank, _, step, loss in references.of(training).steps() if rank == 0}
    last, wanted = weights(training), weights(references.of(training))
    ended = status == 0 and last is not None and {step for step, _ in done} >= set(range(1, STEPS + 1))
    assert wanted is not None, "the uninterrupted run has saved nothing"
    exact = ended and last is not None and all(whole.get(step) == loss for step, loss in done) and same(last, wanted)
    why = "" if ended else f"status {status}: {training.attempts[-1].last_words()}"
    if ended and began_again:
        why = "began again at step 1"
    return Outcome(not ended or began_again, exact and not began_again, len(done) - len({s for s, _ in done}), why)


def go_on(training: Training, references: Reference) -> Outcome:
    """Start a training again, and judge it at its end."""
    saved, before = training.had_saved(), len(training.steps())
    status = training.start(resume=True).end()
    firsts = [step for rank, _, step, _ in training.steps()[before:] if rank == 0]
    return judge(training, references, status, began_again=saved and bool(firsts) and firsts[0] == 1)


# --- Faults of one process --------------------------------------------------------------------------------------------

Play = Callable[[str, Path, random.Random, Reference], "Outcome | list[Outcome]"]


def interrupted(training: Training, dice: random.Random, first: int = 2) -> Attempt:
    """Start a training, and wait for a random moment of it."""
    from fault_training import STEPS

    attempt = training.start()
    training.wait_for(dice.randint(first, STEPS - 8), attempt)
    time.sleep(dice.uniform(0, 0.03))
    if attempt.status == 0:
        raise Missed
    return attempt


def kill(side: str, folder: Path, dice: random.Random, references: Reference) -> list[Outcome]:
    """SIGKILL at random moments, five in one training, each in the attempt that the one before led to."""
    from fault_training import STEPS

    training = Training(side, folder, dice.choice(["iterations", "epochs"]))
    moments = sorted(dice.sample(range(2, STEPS - 8), 5))
    outcomes: list[Outcome] = []
    while moments:
        saved, before = training.had_saved(), len(training.steps())
        attempt = training.start(resume=bool(outcomes))
        training.wait_for(moments.pop(0), attempt, after=before)
        time.sleep(dice.uniform(0, 0.03))
        attempt.tell(signal.SIGKILL)
        ended = attempt.end() == 0
        if outcomes:
            outcomes[-1] = whether_lost(training, saved, before)
        if ended or (outcomes and outcomes[-1].lost):
            break
        outcomes.append(Outcome(False, False, 0))
    else:
        outcomes[-1] = go_on(training, references)
        outcomes[-1].repeated -= sum(each.repeated for each in outcomes[:-1])
    whole = judge(training, references, training.attempts[-1].status or 0, began_again=False)
    for each in outcomes:
        each.exact = whole.exact and not each.lost
    return outcomes


def whether_lost(training: Training, saved: bool, before: int) -> Outcome:
    """What an attempt that was killed in its turn says of the kill before; its steps begin after so many lines."""
    steps = [step for rank, _, step, _ in training.steps()]
    again = steps[before:]
    if not again:
        return Outcome(True, False, 0, f"status {training.attempts[-1].status}: {training.attempts[-1].last_words()}")
    began_again = saved and again[0] == 1
    return Outcome(began_again, False, max(steps[:before]) - again[0] + 1, "began again at step 1" * began_again)


def in_write(side: str, folder: Path, dice: random.Random, references: Reference, keep: int = 1) -> Outcome:
    """The kernel ends the process in the middle of writing a checkpoint: no file may become larger than a part."""
    options = [] if keep == 1 else [f"default_hooks.checkpoint.max_keep_ckpts={keep}"]
    training = Training(side, folder, "iterations", options)
    attempt = interrupted(training, dice, first=10)
    size = next(training.work_dir.glob("iter_*.pth")).stat().st_size if any(training.work_dir.glob("*.pth")) else 300000
    limit = int(size * dice.uniform(0.3, 0.99))
    with suppress(ProcessLookupError):
        resource.prlimit(attempt.pid, resource.RLIMIT_FSIZE, (limit, limit))
    if (status := attempt.end()) == 0:
        raise Missed
    assert status == -signal.SIGXFSZ, f"it did not die in a write: {status}, {attempt.last_words()}"
    return go_on(training, references)


def in_write_all_kept(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """The same, where all checkpoints are kept, mmengine's default."""
    return in_write(side, folder, dice, references, keep=-1)


def told(number: signal.Signals, *options: str) -> Play:
    """A signal to stop, to the process alone."""

    def play(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
        training = Training(side, folder, "iterations", options)
        attempt = interrupted(training, dice)
        attempt.tell(number)
        if (status := attempt.end()) == 0:
            raise Missed
        if side == "ours":
            wanted = 130 if number == signal.SIGINT else 85
            assert status == wanted, f"exit status {status}: {attempt.last_words()}"
        return go_on(training, references)

    return play


def moved(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """SIGKILL, and the work dir is at another place when it goes on."""
    training = Training(side, folder)
    attempt = interrupted(training, dice, first=10)
    attempt.tell(signal.SIGKILL)
    if attempt.end() == 0:
        raise Missed
    there = folder / "elsewhere" / "run"
    there.parent.mkdir()
    training.work_dir = training.work_dir.rename(there)
    return go_on(training, references)


def in_evaluation(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """SIGKILL in the last evaluation, which the run has to make when it goes on."""
    from fault_training import EVALUATED, STEPS

    training = Training(side, folder, lines=EVALUATED)
    attempt = training.start()
    while str(STEPS) not in (begun := training.evaluations()) and attempt.status is None:
        time.sleep(0.002)
    time.sleep(dice.uniform(0, 0.1))
    attempt.tell(signal.SIGKILL)
    if attempt.end() == 0 or str(STEPS) not in begun:
        raise Missed
    outcome = go_on(training, references)
    found, wanted = (set(filter(_has_metric, each.evaluations())) for each in (training, references.of(training)))
    if not outcome.lost and not any(line.startswith(f"{STEPS} ") for line in found):
        outcome.lost, outcome.why = True, "it ended without its last evaluation"
    outcome.exact = outcome.exact and found == wanted
    return outcome


def _has_metric(line: str) -> bool:
    return " " in line


def two_runs(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """A second training with another seed is started in the work dir of one that runs."""
    first = Training(side, folder)
    attempt = interrupted(first, dice)
    second = Training(side, folder / "second", options=["randomness.seed=4"])
    second.work_dir = first.work_dir
    attempt.tell(signal.SIGSTOP)  # so that it does not end before the other has begun
    status = second.start().end()
    left = weights(second) if status == 0 else None
    attempt.tell(signal.SIGCONT)
    if side == "ours":
        assert status == 1, f"exit status {status}: {second.attempts[0].last_words()}"
    outcome = judge(first, references, attempt.end(), began_again=False)
    if left is not None and not same(left, weights(second)):
        outcome.lost, outcome.exact, outcome.why = True, False, "it overwrote the results of the second"
    return outcome


# --- Disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def disk(folder: Path, megabytes: int = 16) -> Iterator[Path]:
    """A disk of its own, in memory."""
    folder.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]).returncode:
        raise Skipped("mounting a disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(lines: str = "") -> Play:
    """The disk becomes full at a random moment, and there is room again before the run goes on."""

    def play(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
        training = Training(side, folder, lines=lines)
        with disk(folder / "disk") as mounted:
            training.work_dir = mounted / "run"
            attempt = interrupted(training, dice, first=10)
            filler = mounted / "filler"
            with open(filler, "wb", buffering=0) as file, suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            status = attempt.end()
            if side == "ours":
                assert status == (0 if lines else 1), f"exit status {status}: {attempt.last_words()}"
            filler.unlink()
            return go_on(training, references)

    return play


def read_only(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """The right to write to the work dir is taken away at a random moment, and given back."""
    training = Training(side, folder)
    attempt = interrupted(training, dice, first=10)
    training.work_dir.chmod(0o555)
    status = attempt.end()
    training.work_dir.chmod(0o755)
    assert status > 0, f"exit status {status}: {attempt.last_words()}"
    return go_on(training, references)


# --- Several processes ------------------------------------------------------------------------------------------------


def workers_of(training: Training, before: int) -> dict[int, int]:
    """Processes by rank, of those that recorded after so many lines."""
    return {rank: pid for rank, pid, _, _ in training.steps()[before:]}


def _elastic(side: str, folder: Path, dice: random.Random, references: Reference, kills: int, all_of_them: bool) -> Any:
    """Workers under torchrun die; it starts them again, and nobody says --resume."""
    training = Training(side, folder, processes=2)
    if side != "ours":
        return not_on_cpus(training)
    from fault_training import STEPS

    moments = sorted(dice.sample(range(4, STEPS - 6), kills))
    log, before, deaths = folder / "attempt.log", 0, []
    attempt = training.start_script(["tools/dist_train.sh"], log, resume=False, MAX_RESTARTS=str(kills))
    training.attempts.append(attempt)
    for moment in moments:
        if not all(training.wait_for(moment, attempt, rank, before) for rank in (0, 1)):
            break
        time.sleep(dice.uniform(0, 0.03))
        workers = workers_of(training, before)
        for pid in workers.values() if all_of_them else [workers[dice.randint(0, 1)]]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deaths.append(max(step for _, _, step, _ in training.steps()))
        while attempt.status is None and any(map(alive, workers.values())):
            time.sleep(0.02)
        before = len(training.steps())
    return restarts(training, references, attempt.end(), deaths, kills)


def restarts(training: Training, references: Reference, status: int, deaths: list[int], kills: int) -> list[Outcome]:
    """One outcome for each death of a run that went on by itself: those after which it did not are lost."""
    from fault_training import INTERVAL

    whole = judge(training, references, status, began_again=False)
    outcomes: list[Outcome] = []
    order = list(dict.fromkeys(pid for rank, pid, _, _ in training.steps() if rank == 0))
    for number in range(kills):
        again = [s for r, pid, s, _ in training.steps() if r == 0 and order[number + 1 :][:1] == [pid]]
        began_again = bool(again) and again[0] == 1 and deaths[number] > INTERVAL
        repeated = max(0, deaths[number] - again[0] + 1) if again else 0
        outcomes.append(Outcome(not again or began_again, bool(again) and whole.exact, repeated, whole.why))
    if whole.lost:  # whatever the restarts were
        outcomes[-1].lost = True
    return outcomes


def one_worker(side: str, folder: Path, dice: random.Random, references: Reference) -> Any:
    """SIGKILL to one of two workers, ten times in a run."""
    return _elastic(side, folder, dice, references, kills=10, all_of_them=False)


def all_workers(side: str, folder: Path, dice: random.Random, references: Reference) -> Any:
    """SIGKILL to both workers, three times in a run."""
    return _elastic(side, folder, dice, references, kills=3, all_of_them=True)


def told_through_torchrun(number: signal.Signals) -> Play:
    """A signal to tools/dist_train.sh."""

    def play(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
        training = Training(side, folder, processes=2)
        if side != "ours":
            return not_on_cpus(training)
        attempt = interrupted(training, dice)
        attempt.tell(number)
        if (status := attempt.end()) == 0:
            raise Missed
        assert status == 85, f"exit status {status}: {attempt.last_words()}"
        return go_on(training, references)

    return play


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def not_on_cpus(training: Training) -> Outcome:
    """Let mmengine try: its start of processes and its wrapper of models want CUDA."""
    code = "import fault_training, sys; fault_training.train(sys.argv[1:])"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    command = [*run, sys.executable, "-c", code, str(training.config), *training.arguments(False)]
    env = os.environ | training.environment() | dict(PYTHONPATH=str(HERE))
    with open(training.folder / "attempt.log", "w") as file:
        backend = ["env_cfg.dist_cfg.backend=gloo"]
        process = subprocess.Popen(
            [*command, "--launcher", "pytorch", *([] if training.options else ["--cfg-options"]), *backend],
            cwd=training.folder, env=env, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    attempt = Attempt(process, training.folder / "attempt.log")
    status = attempt.end()
    said = [line for line in attempt.log.read_text().splitlines() if "Error" in line and "elastic" not in line]
    if status == 0:
        raise RuntimeError("mmengine trains in several processes without CUDA: play the fault on it")
    raise Skipped(f"does not start without CUDA ({said[0].strip()[:90] if said else f'status {status}'})")


# --- Hosts ------------------------------------------------------------------------------------------------------------


@contextmanager
def two_hosts(folder: Path) -> Iterator[list[list[str]]]:
    """Two hosts on one wire: networks, host names and hosts files of their own. Yields what runs a command on each."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        raise Skipped("network namespaces need root, ip and unshare")
    name = f"ey{os.getpid() % 10000}"
    spaces, ends = [f"{name}a", f"{name}b"], [f"{name}va", f"{name}vb"]
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.213.7.1 host0\n10.213.7.2 host1\n")
    try:
        for space in spaces:
            if subprocess.run(["ip", "netns", "add", space], capture_output=True).returncode:
                raise Skipped("no network namespace can be made here")
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (space, end) in enumerate(zip(spaces, ends, strict=True)):
            run("ip", "link", "set", end, "netns", space)
            run("ip", "-n", space, "addr", "add", f"10.213.7.{number + 1}/24", "dev", end)
            run("ip", "-n", space, "link", "set", end, "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
        yield [
            ["ip", "netns", "exec", space, "unshare", "--uts", "--mount", "sh", "-c",
             f'hostname host{number}; mount --bind {hosts} /etc/hosts; exec "$@"', "sh"]
            for number, space in enumerate(spaces)
        ]  # fmt: skip
    finally:
        for space in spaces:
            kill_host(space)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


def run(*command: str) -> str:
    """Run a command that has to succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kill_host(space: str) -> None:
    """SIGKILL to all processes of a network namespace of ours, as a power cut does."""
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def on_two_hosts(training: Training) -> Iterator[tuple[list[list[str]], Callable[..., Attempt]]]:
    """Yield the hosts, and what starts a training's process on one of them."""
    with two_hosts(training.folder) as hosts:

        def boot(number: int, resume: bool = False) -> Attempt:
            log = training.folder / f"host{number}.{len(training.attempts)}.log"
            attempt = training.start_script(
                ["tools/dist_train.sh"], log, resume, hosts[number], NNODES="2", NODE_RANK=str(number),
                MASTER_ADDR="host0", MAX_RESTARTS="6",
            )  # fmt: skip
            training.attempts.append(attempt)
            return attempt

        # One process on each, with the options of several.
        training.processes, training.options = 1, training.options + ALONE
        yield hosts, boot
        training.processes, training.options = 2, training.options[: -len(ALONE)]


def one_host(side: str, folder: Path, dice: random.Random, references: Reference) -> Any:
    """All of one of two hosts dies, three times in a run, and comes back with the same command."""
    training = Training(side, folder, processes=2)
    if side != "ours":
        return not_on_cpus(training)
    from fault_training import STEPS

    with on_two_hosts(training) as (hosts, boot):
        first, second = boot(0), boot(1)
        before, deaths = 0, []
        for moment in sorted(dice.sample(range(4, STEPS - 6), 3)):
            if not all(training.wait_for(moment, first, rank, before) for rank in (0, 1)):
                break
            deaths.append(max(step for _, _, step, _ in training.steps()))
            kill_host(hosts[1][3])
            second.end()
            time.sleep(dice.uniform(0, 3))
            before = len(training.steps())
            second = boot(1)
        status = first.end() or second.end()
    return restarts(training, references, status, deaths, 3)


def first_host(side: str, folder: Path, dice: random.Random, references: Reference) -> Outcome:
    """All of the host dies that has torchrun's store: the other one ends, and both are started with --resume."""
    training = Training(side, folder, processes=2)
    if side != "ours":
        return not_on_cpus(training)
    from fault_training import STEPS

    with on_two_hosts(training) as (hosts, boot):
        first, second = boot(0), boot(1)
        training.wait_for(dice.randint(4, STEPS - 8), first)
        kill_host(hosts[0][3])
        first.end()
        ended = second.end()
        assert ended > 0, f"the other host ends with {ended}: {second.last_words()}"
        saved, before = training.had_saved(), len(training.steps())
        first, second = boot(0, resume=True), boot(1, resume=True)
        status = first.end() or second.end()
    again = [step for rank, _, step, _ in training.steps()[before:] if rank == 0]
    return judge(training, references, status, began_again=saved and again[:1] == [1])


# --- The table --------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, int, Play]] = {
    "kill": ("SIGKILL at a random moment", 50, kill),
    "write": ("killed inside a checkpoint write, one checkpoint kept", 10, in_write),
    "write-all": ("killed inside a checkpoint write, all kept", 10, in_write_all_kept),
    "evaluation": ("SIGKILL in the last evaluation", 3, in_evaluation),
    "moved": ("SIGKILL, then the work dir is moved", 3, moved),
    "sigterm": ("SIGTERM", 3, told(signal.SIGTERM)),
    "sigusr1": ("SIGUSR1", 3, told(signal.SIGUSR1)),
    "interrupt": ("SIGINT, as of Ctrl-C", 3, told(signal.SIGINT)),
    "hangup": ("SIGHUP, as of a terminal that is closed", 3, told(signal.SIGHUP)),
    "accumulation": (
        "SIGTERM while gradients are accumulated (4 steps)",
        3,
        told(signal.SIGTERM, "optim_wrapper.accumulative_counts=4"),
    ),
    "full": ("disk full; the run stops", 3, full_disk()),
    "full-goes-on": ("disk full, `on_save_error='go_on'`", 3, full_disk("on_save_error = 'go_on'\n")),
    "read-only": ("work dir becomes read-only", 3, read_only),
    "two-runs": ("a second run in the same work dir", 3, two_runs),
    "one-worker": ("torchrun: SIGKILL of one worker, goes on by itself", 1, one_worker),
    "all-workers": ("torchrun: SIGKILL of all workers, goes on by itself", 1, all_workers),
    "torchrun-sigterm": ("SIGTERM through torchrun", 2, told_through_torchrun(signal.SIGTERM)),
    "torchrun-sigusr1": ("SIGUSR1 through torchrun", 2, told_through_torchrun(signal.SIGUSR1)),
    "host": ("two hosts: one dies and returns, goes on by itself", 1, one_host),
    "first-host": ("two hosts: that of `MASTER_ADDR` dies", 2, first_host),
}


TOGETHER = (
    "one-worker",
    "all-workers",
    "torchrun-sigterm",
    "torchrun-sigusr1",
    "host",
    "first-host",
)  # several processes


def play_all(side: str, names: Sequence[str], seed: int, plays: int | None, rows: Path) -> None:
    """Play faults on one side, and append a line of JSON for each to a file."""
    import torch
    from mmengine.config import config as config_file

    if side == "ours":
        import eyetoy_mm.engine.launch  # noqa: F401 - forked trainings have it
    import fault_training  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import torch._dynamo

    torch.set_num_threads(1)
    config_file.FormatCode = lambda text, **_: (text, False)  # yapf takes most of a start
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a killed training leaves is ours
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    base.chmod(0o755)
    references = Reference(base)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with it
    try:
        for name in names:
            row = Row()
            number = 0
            while len(row.outcomes) < min(FAULTS[name][1], plays or LIMIT) and not row.skipped:
                dice = random.Random(zlib.crc32(f"{seed} {name} {number}".encode()))
                folder, number = base / f"{name}{number}", number + 1
                try:
                    outcome = FAULTS[name][2](side, folder, dice, references)
                    row.outcomes += outcome if isinstance(outcome, list) else [outcome]
                    print(f"{side}: {name} {number}: {outcome}", file=sys.stderr, flush=True)
                except Skipped as reason:
                    row.skipped = str(reason)
                except Missed:
                    print(f"{side}: {name} {number}: the run had ended before", file=sys.stderr, flush=True)
                except AssertionError as error:
                    row.outcomes.append(Outcome(True, False, 0, str(error)))
                shutil.rmtree(folder, ignore_errors=True)
            with open(rows, "a") as file:
                file.write(json.dumps(dict(side=side, fault=name, row=asdict(row))) + "\n")
    finally:
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            kill_tree(int(child))
        shutil.rmtree(base, ignore_errors=True)


def cells(row: Row) -> tuple[str, str, str]:
    """Runs lost, runs that are exact, and steps done twice in each."""
    count = len(row.outcomes)
    if not count:
        return "not played", "-", "-"
    repeated = [each.repeated for each in row.outcomes if not each.lost]
    again = f"{sum(repeated) / len(repeated):.1f}" if repeated else "-"
    return (
        f"{sum(each.lost for each in row.outcomes)} of {count}",
        f"{sum(each.exact for each in row.outcomes)} of {count}",
        again,
    )


def main() -> int:
    """Play, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--plays", type=int, help="at most so many of each (default: as many as the table has)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--into", type=Path, help="document that keeps a place for the table")
    parser.add_argument("--rows", type=Path, help="file that keeps what was played, which then is not played again")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.faults or list(FAULTS)
    if args.side:  # in an interpreter of its own, without the other
        play_all(args.side, names, args.seed, args.plays, args.rows)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        args.rows = args.rows or Path(folder, "rows")
        results = play_beside(names, args)
    report(names, results, args)
    ours = [each for row in results["ours"].values() for each in row.outcomes]
    return int(any(each.lost or not each.exact for each in ours))


def read_rows(path: Path) -> dict[str, dict[str, Row]]:
    """What was played: by side and fault."""
    results: dict[str, dict[str, Row]] = {side: {} for side in SIDES}
    for line in path.read_text().splitlines() if path.is_file() else ():
        found = json.loads(line)
        outcomes = [Outcome(**each) for each in found["row"]["outcomes"]]
        results[found["side"]][found["fault"]] = Row(outcomes, found["row"]["skipped"])
    return results


def play_beside(names: Sequence[str], args: argparse.Namespace) -> dict[str, dict[str, Row]]:
    """Play what is not yet in the file of rows: both sides, and one process and several, side by side."""
    known, started = read_rows(args.rows), []
    for side in SIDES:
        for together in (False, True):
            part = [name for name in names if (name in TOGETHER) == together and name not in known[side]]
            command = [sys.executable, __file__, *part, "--side", side, "--seed", str(args.seed)]
            command += ["--rows", str(args.rows), *(["--plays", str(args.plays)] if args.plays else [])]
            if part:
                started.append(subprocess.Popen(command, env=os.environ | dict(OMP_NUM_THREADS="1")))
    if any([process.wait() for process in started]):
        raise SystemExit("a part of it failed; what was played is in the file of --rows")
    return read_rows(args.rows)


def in_short(why: str) -> str:
    """What a run ended with, without the folder and the number of the step."""
    return re.sub(r"(iter|epoch)_\d+", "iter_N", re.sub(r"/\S*faults-\w+/[\w-]+/(disk/)?", "", why))


def report(names: Sequence[str], results: dict[str, dict[str, Row]], args: argparse.Namespace) -> None:
    """Print or write the table."""
    from eyetoy_mm.tables import markdown_table, write_into

    header = ["fault", *(f"{side}: {what}" for side in SIDES for what in ("lost", "exact", "steps again"))]
    table = markdown_table(
        header, [[FAULTS[name][0], *(cell for side in SIDES for cell in cells(results[side][name]))] for name in names]
    )
    lines = [f"Random moments of seed {args.seed}.", "", table]
    lost: dict[str, list[str]] = {}
    skipped: dict[str, list[str]] = {}
    for side in SIDES:
        for name in names:
            row = results[side][name]
            for why in sorted({in_short(each.why) for each in row.outcomes if each.lost}):
                lost.setdefault(f"{side}: {why}", []).append(FAULTS[name][0])
            if row.skipped:
                skipped.setdefault(f"{side}: {row.skipped}", []).append(FAULTS[name][0])
    for title, reasons in (("How runs were lost", lost), ("Not played", skipped)):
        if reasons:
            lines += ["", f"{title}:", "", *(f"- {why} ({'; '.join(faults)})" for why, faults in reasons.items())]
    text = "\n".join(lines)
    if args.into:
        write_into(args.into, "benchmarks/faults.py", text)
    else:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
