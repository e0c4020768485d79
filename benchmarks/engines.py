"""The losses of one batch after the other, side by side: one process, two with DDP, two with FSDP2, and resumed.

    python benchmarks/engines.py                       # UperNet and Mask R-CNN, 20 steps of four images, on CPUs
    python benchmarks/engines.py --steps 4 --models upernet --into docs/engines.md
    python benchmarks/engines.py --double --models upernet  # rounding does not grow in float64: all steps count

The photos of data/sample, EyeToy-demo, float32 without --double. ``split_invariant`` is on but in the column that says
so. FSDP2 saves in shards and in the background at half of the steps; from there DDP goes on, and so does one process.
--double is for UperNet, with group norm: MMSyncBN takes no float64, and mmdet's boxes have 32 bits. Exit code 1 where a
loss differs by more than --tolerance, relative to the first column; without --double seven steps of UperNet count, and
four of Mask R-CNN. docs/engines.md says what it shows.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.launch import train
from eyetoy_mm.registry import HOOKS

ROOT = Path(__file__).resolve().parent.parent
UPERNET = ROOT / "configs/sample/upernet_eyetoy-demo_sample.py"
MASK_RCNN = ROOT / "configs/sample/mask-rcnn_eyetoy-demo_sample.py"
MARKS = "<!-- losses: benchmarks/engines.py -->", "<!-- end of losses -->"
SHARDS = dict(type="FSDP2", checkpoints="sharded", async_save=True)
BASELINE = "1 process"
COMPARED = {"upernet": 7, "mask_rcnn": 4}  # steps, before training has enlarged what is rounded otherwise


def runs(steps: int, detector: bool) -> dict[str, dict[str, Any]]:
    """Columns of the table, in the order in which they can run."""
    half = f"{steps // 2}"
    found: dict[str, dict[str, Any]] = {
        BASELINE: dict(processes=1),
        "2 DDP": dict(processes=2, folder="ddp"),
        "2 FSDP2": dict(processes=2, folder="fsdp2", engine=SHARDS),
        f"FSDP2, from {half} 2 DDP": dict(processes=2, resume=f"fsdp2/iter_{half}.pth"),
        f"DDP, from {half} 2 FSDP2": dict(processes=2, resume=f"ddp/iter_{half}.pth", engine="FSDP2"),
        f"FSDP2, from {half} 1 process": dict(processes=1, resume=f"fsdp2/iter_{half}.pth"),
    }
    if detector:
        found["2 DDP, not split_invariant"] = dict(processes=2, invariant=False)
    return found


@HOOKS.register_module()
class KeepLossesHook(Hook):
    """Write the loss of each step, the mean over processes, a line each."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        loss = outputs["loss"].detach().clone()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        if runner.rank == 0:
            with open(self.path, "a") as file:
                file.write(json.dumps([runner.iter + 1, loss.item()]) + "\n")


def config_of(model: str, steps: int, double: bool, run: dict[str, Any], folder: Path, losses: Path) -> Config:
    """A sample config with batches of four images over all processes, and nothing that each process draws itself."""
    several = run["processes"] > 1
    options = {
        "train_dataloader.batch_size": 4 // run["processes"],
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.sampler": dict(type="InfiniteSampler", shuffle=True, _delete_=True),
        "train_dataloader.batch_sampler": None,  # mmdet's makes batches of one aspect ratio of the images of a process
        "train_cfg": dict(by_epoch=False, max_iters=steps, _delete_=True),
        "val_dataloader": None,
        "val_cfg": None,
        "val_evaluator": None,
        "param_scheduler": dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=10, _delete_=True),
        "optim_wrapper.clip_grad": dict(max_norm=1.0),
        "default_hooks.checkpoint": dict(type="CheckpointHook", interval=steps // 2, by_epoch=False, _delete_=True),
        "split_invariant": run.get("invariant", True),
        "custom_hooks": [dict(type="EMAHook"), dict(type="eyetoy_mm.KeepLossesHook", path=str(losses))],
        "log_level": "WARNING",
    }
    if model == "upernet":
        # MMSyncBN in one process, too: it draws numbers when it is built, which moves all that are drawn after it.
        norm = dict(type="GN", num_groups=8) if double else dict(type="MMSyncBN")
        options |= {
            "model.decode_head.dropout_ratio": 0.0,
            "model.auxiliary_head.dropout_ratio": 0.0,
            "model.decode_head.norm_cfg": dict(norm, requires_grad=True, _delete_=True),
            "model.auxiliary_head.norm_cfg": dict(norm, requires_grad=True, _delete_=True),
        }
    else:
        resize = "train_dataloader.dataset.pipeline.2"  # to one size: batches are padded to the largest of a process
        # As mmdet trains it. AdamW makes a full step of what is rounding alone, and then other boxes survive NMS.
        options["optim_wrapper.optimizer"] = dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4, _delete_=True)
        options |= {f"{resize}.scale": (192, 128), f"{resize}.ratio_range": (1.0, 1.0), f"{resize}.keep_ratio": False}
    if run.get("engine"):
        options["engine"] = run["engine"]
    path = UPERNET if model == "upernet" else MASK_RCNN
    work_dir = folder / (run.get("folder") or losses.stem)
    launcher = "pytorch" if several else "none"
    return load_config(path, options=options, work_dir=str(work_dir), launcher=launcher)


def work(arguments: dict[str, Any]) -> None:
    """What one process does: the runs in which it has a part."""
    torch.set_num_threads(1)
    folder, model, steps, double = Path(arguments["folder"]), *(arguments[key] for key in ("model", "steps", "double"))
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    with joined(Config(dict(launcher="pytorch" if arguments["processes"] > 1 else "none"))):
        for number, run in arguments["runs"].items():
            config = config_of(model, steps, double, run, folder, folder / f"losses_{number}.jsonl")
            train(config, resume=str(folder / run["resume"]) if "resume" in run else None)


def measure(model: str, steps: int, double: bool, folder: Path) -> dict[str, dict[int, float]]:
    """The losses of each column, by step."""
    columns = runs(steps, detector=model == "mask_rcnn")
    for processes in (2, 1):
        mine = {str(i): run for i, run in enumerate(columns.values()) if run["processes"] == processes}
        arguments = dict(folder=str(folder), model=model, steps=steps, double=double, processes=processes, runs=mine)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        started = []
        for rank in range(processes):
            place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            env = {**os.environ, **{name: str(value) for name, value in place.items()}} if processes > 1 else None
            started.append(subprocess.Popen([sys.executable, __file__, "--work", json.dumps(arguments)], env=env))
        if any([process.wait() for process in started]):
            sys.exit(f"a process of {model} failed")
    found = {}
    for number, name in enumerate(columns):
        lines = (folder / f"losses_{number}.jsonl").read_text().splitlines()
        found[name] = dict(map(json.loads, lines))
    return found


def largest_difference(losses: dict[int, float], baseline: dict[int, float]) -> float:
    return max(abs(losses[step] - baseline[step]) / abs(baseline[step]) for step in losses)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(model: str, found: dict[str, dict[int, float]]) -> list[str]:
    columns = list(found)
    lines = [row(f"{model}: step", *columns), row(*["---:"] * (len(columns) + 1))]
    for step in found[BASELINE]:
        values = [f"{found[name][step]:.6f}" if step in found[name] else "" for name in columns]
        lines.append(row(str(step), *values))
    differences = [f"{largest_difference(found[name], found[BASELINE]):.1e}" for name in columns]
    return [*lines, row("largest difference", *differences)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="an even number")
    parser.add_argument("--models", nargs="+", choices=["upernet", "mask_rcnn"], default=["upernet", "mask_rcnn"])
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference of a loss")
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--into", type=Path, help="page with the marks between which the tables are written")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.double and not arguments.work and "mask_rcnn" in arguments.models:
        parser.error("--double is for UperNet: --models upernet")
    if arguments.work:
        work(arguments.work)
        return
    lines, wrong = [], []
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(model, arguments.steps, arguments.double, Path(folder))
        lines += [*table(model, found), ""]
        for name, losses in found.items():
            if not name.endswith("not split_invariant"):
                first = {step: loss for step, loss in losses.items() if arguments.double or step <= COMPARED[model]}
                difference = largest_difference(first, found[BASELINE]) if first else 0.0
                wrong += [f"{model}, {name}: {difference:.1e}"] * (difference > arguments.tolerance)
    print("\n".join(lines))
    if arguments.into:
        before, rest = arguments.into.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        arguments.into.write_text("\n".join([before + MARKS[0], "", *lines, MARKS[1] + after]))
    if wrong:
        sys.exit(f"other losses: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
