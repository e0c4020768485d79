"""A long run of the demo, to see that nothing grows: memory, open files, threads and the time of a step.

    python benchmarks/soak.py                          # 2,000 steps on one thread, most of an hour on a busy core
    python benchmarks/soak.py --plot work_dirs/soak    # the picture and the figures of a run that is there already

Trains ``configs/sample/upernet_eyetoy-demo_sample.py`` as ``eyetoy train`` does, with its evaluations and checkpoints
every 200 steps. Every few steps the memory of the process and of its data workers, their open files and threads, and
the processor time of a step are written to ``soak.jsonl`` in the work dir; the picture is drawn from that file.
Processor time, because it says the same on a machine that does other things as well. Exit code 1 where something grew:
where the last quarter of the steps has more than the second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from measuring import header, machine, row
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.launch import train
from eyetoy_mm.registry import HOOKS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "sample" / "upernet_eyetoy-demo_sample.py"
SAMPLE = ROOT / "data" / "sample"
# What the mean of the last quarter may have more than that of the second, and how a value is written.
LIMITS = {
    "memory": (0.03, "memory of the process, MB"),
    "workers": (0.03, "memory of its data workers, MB"),
    "files": (0.0, "open files"),
    "threads": (0.0, "threads"),
    "step": (0.1, "processor time of a step, s"),
}


@HOOKS.register_module()
class MeasureHook(Hook):
    """Write what the process holds, every few steps.

    Args:
        path: The file, a JSON object a line.
        interval: Steps between two lines.
    """

    priority = "LOWEST"

    def __init__(self, path: str, interval: int) -> None:
        self.path, self.interval = Path(path), interval
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Begin to measure a step; loading is in processes of its own, and evaluation not in a step."""
        if batch_idx % self.interval == 0:
            self.steps, self.spent = 0, 0.0
        self.began = time.process_time()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Add up the steps and write the mean."""
        self.spent += time.process_time() - self.began
        self.steps += 1
        if (batch_idx + 1) % self.interval:
            return
        workers = children()
        record = {
            "iteration": batch_idx + 1,
            "memory": held("self"),
            "workers": sum(map(held, workers)),
            "files": sum(open_files(process) for process in ("self", *workers)),
            "threads": sum(status(process, "Threads") for process in ("self", *workers)),
            "step": self.spent / self.steps,
            "loss": float(runner.message_hub.get_scalar("train/loss").current()),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def children() -> list[str]:
    """Processes that this one has started and that still run: the data workers."""
    return Path("/proc/self/task", str(Path("/proc/self").readlink()), "children").read_text().split()


def status(process: str, key: str) -> int:
    """A number of ``/proc/PROCESS/status``."""
    lines = Path("/proc", process, "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def held(process: str) -> float:
    """MB of a process, of what a fork left it its share; without files, which the system drops as it likes."""
    lines = Path("/proc", process, "smaps_rollup").read_text().splitlines()
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def open_files(process: str) -> int:
    """Number of file handles, sockets and pipes included."""
    return sum(1 for _ in Path("/proc", process, "fd").iterdir())


def growth(records: list[dict], key: str) -> tuple[float, float]:
    """Medians of the second and of the last quarter."""
    quarter = len(records) // 4
    values = [record[key] for record in records]
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def draw(records: list[dict], path: Path) -> None:
    """One panel for each quantity, over the steps."""
    from matplotlib.figure import Figure

    panels = [("memory", "workers"), ("files", "threads"), ("step",), ("loss",)]
    titles = [
        "memory, MB",
        "open files and threads, with those of workers",
        "processor time of a step, s",
        "loss",
    ]
    figure = Figure(figsize=(10, 6), layout="constrained")
    steps = [record["iteration"] for record in records]
    for axes, keys, title in zip(figure.subplots(2, 2).flat, panels, titles, strict=True):
        for key in keys:
            axes.plot(steps, [record[key] for record in records], label=key)
        axes.set(title=title, xlabel="step", ylim=(0, None), xlim=(0, steps[-1]))
        axes.grid(alpha=0.3)
        if len(keys) > 1:
            axes.legend()
    figure.savefig(path, dpi=100)


def report(records: list[dict], picture: Path) -> int:
    """Print the figures and draw them; the number of quantities that grew."""
    draw(records, picture)
    header(f"{records[-1]['iteration']} steps", "second quarter", "last quarter", "may grow by", "")
    grew = 0
    for key, (limit, name) in LIMITS.items():
        before, after = growth(records, key)
        flat = after <= before * (1 + limit)
        grew += not flat
        row(name, f"{before:.4g}", f"{after:.4g}", f"{limit:.0%}", "flat" if flat else "**grew**")
    print(f"\nmedians; drawn in {picture}")
    return grew


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--interval", type=int, default=10, help="steps between two measurements (default: 10)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/soak"))
    parser.add_argument("--plot", type=Path, metavar="WORK_DIR", help="draw what was measured there, and run nothing")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "soak.png")
    args = parser.parse_args()
    measured = (args.plot or args.work_dir) / "soak.jsonl"
    if args.plot is None:
        torch.set_num_threads(args.threads)
        print(f"torch {torch.__version__}, {machine('cpu')}, {args.threads} threads", flush=True)
        options = {"train_cfg.max_iters": args.steps, "param_scheduler.1.end": args.steps}
        config = load_config(CONFIG, work_dir=str(args.work_dir), data_root=str(SAMPLE), options=options)
        config.custom_hooks.append(dict(type="eyetoy_mm.MeasureHook", path=str(measured), interval=args.interval))
        train(config)
    records = [json.loads(line) for line in measured.read_text().splitlines()]
    sys.exit(1 if report(records, args.picture) else 0)


if __name__ == "__main__":
    main()
