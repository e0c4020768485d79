"""Short runs of a small model by each engine, in one of several processes: engine_runs.py FOLDER RUNS.

RUNS is JSON: a list of the arguments of :func:`train`. The losses are written, run by run, to FOLDER/losses.RANK.json.
The last run is told to stop, which ends the process.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn

import eyetoy_mm  # noqa: F401
from eyetoy_mm.engine.config import adapt_to_machine
from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.engines import shards_model
from eyetoy_mm.engine.exact_resume import go_on_exactly
from eyetoy_mm.engine.hooks import CompareResumedHook, SaveOnSignalHook, SeedIterationsHook
from eyetoy_mm.engine.runner import CheckedRunner, ShardedRunner


class Points(torch.utils.data.Dataset):
    metainfo = dict(classes=("a",))

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.sin(torch.arange(5) * (index + 1.0)) + 0.1 * torch.randn(5))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))

    def forward(self, x):
        return x + self.layers(x)


class Small(BaseModel):
    """Sizes that two processes do not divide, a buffer, and a part that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block(), Block(), Block())
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.head = nn.Linear(5, 1)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, inputs, mode="tensor"):
        out = self.head(self.backbone(self.frozen(inputs))) * self.scale
        return dict(loss=F.mse_loss(out, inputs.sum(1, keepdim=True))) if mode == "loss" else out


class Losses(Hook):
    """Keeps the losses, the means over processes; tells one of two processes to stop."""

    priority = "VERY_LOW"

    def __init__(self, told_at: int | None) -> None:
        self.values: dict[int, float] = {}
        self.told_at = told_at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = outputs["loss"].detach().clone()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.values[runner.iter] = loss.item()
        if runner.iter == self.told_at and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def train(
    folder: Path,
    name: str,
    engine=None,
    resume: str | None = None,
    told_at: int | None = None,
    samples: int = 4,
    double: bool = False,
    **settings,
):
    """Train for 6 iterations of some samples over all processes.

    Args:
        folder: Of all runs.
        name: Of the folder of this one.
        engine: Of the config.
        resume: A checkpoint, from ``folder``.
        told_at: After which iteration the second process gets SIGTERM.
        samples: Of an iteration, over all processes.
        double: Compute in float64.
        settings: Of the config.

    Returns:
        The losses by iteration.
    """
    for registry, kind in ((MODELS, Small), (DATASETS, Points)):
        registry.register_module(module=kind, force=True)
    config = Config(
        dict(
            train_cfg=dict(by_epoch=False, max_iters=6),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), clip_grad=dict(max_norm=0.5)),
            param_scheduler=dict(type="CosineAnnealingLR", T_max=6, by_epoch=False),
            randomness=dict(seed=3),
            custom_hooks=[dict(type="EMAHook", momentum=0.1)],
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=3, by_epoch=False, max_keep_ckpts=2)),
            log_level="ERROR",
            work_dir=str(folder / name),
            experiment_name=f"{folder.name}-{name}",
            launcher="pytorch" if dist.is_initialized() and dist.get_world_size() > 1 else "none",
            engine=engine,
            resume=resume is not None,
            load_from=None if resume is None else str(folder / resume),
            model=dict(type="Small"),
        )
        | settings
    )
    go_on_exactly(config)
    adapt_to_machine(config)
    config.train_dataloader = dict(
        dataset=dict(type="Points"), batch_size=samples // (dist.get_world_size() if dist.is_initialized() else 1),
        num_workers=0, sampler=dict(type="InfiniteSampler"), collate_fn=dict(type="default_collate"),
    )  # fmt: skip
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    try:
        runner = (ShardedRunner if shards_model(config) else CheckedRunner).from_cfg(config)
        losses = Losses(told_at)
        for hook in (SeedIterationsHook(), CompareResumedHook(resume), losses):
            runner.register_hook(hook)
        if told_at is not None:
            runner.register_hook(SaveOnSignalHook())
        runner.train()
    finally:
        torch.set_default_dtype(torch.float32)
    return losses.values


if __name__ == "__main__":
    folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    with joined(Config(dict(launcher="pytorch", env_cfg=dict(dist_cfg=dict(timeout=60))))):
        found = [train(folder, **run) for run in runs[:-1]]
        (folder / f"losses.{dist.get_rank()}.json").write_text(json.dumps(found))
        train(folder, **runs[-1])
