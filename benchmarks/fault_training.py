"""What benchmarks/faults.py trains: a model of a few milliseconds a step that draws random numbers where real ones do.

Imports nothing of eyetoy_mm, so that mmengine can train it as released: :func:`train` is what the toolboxes' own
``tools/train.py`` do.
"""

from __future__ import annotations

import os
import random
import time
from argparse import ArgumentParser
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

STEPS = 96
PER_EPOCH = 12
INTERVAL = 8
EVALUATIONS = ".evaluations"

_COMMON = f"""
custom_imports = dict(imports=["fault_training"])
default_scope = "mmengine"
model = dict(type="FaultModel")
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.01), clip_grad=dict(max_norm=1.0))
param_scheduler = dict(type="CosineAnnealingLR", T_max={STEPS}, by_epoch=False)
randomness = dict(seed=3)
custom_hooks = [dict(type="EMAHook", update_buffers=True), dict(type="RecordHook")]
"""
_LOADER = """
train_dataloader = dict(
    dataset=dict(type="FaultData"), batch_size=4, num_workers=1, persistent_workers=True,
    sampler=dict(type="{sampler}", shuffle=True), collate_fn=dict(type="default_collate"))
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1),
    checkpoint=dict(type="CheckpointHook", by_epoch={by_epoch}, interval={interval}, max_keep_ckpts=1))
"""
CONFIGS = {
    "iterations": _COMMON
    + _LOADER.format(sampler="InfiniteSampler", by_epoch=False, interval=INTERVAL)
    + f"train_cfg = dict(by_epoch=False, max_iters={STEPS})\n",
    "epochs": _COMMON
    + _LOADER.format(sampler="DefaultSampler", by_epoch=True, interval=1)
    + f"train_cfg = dict(by_epoch=True, max_epochs={STEPS // PER_EPOCH})\n",
}
EVALUATED = f"""
train_cfg = dict(by_epoch=False, max_iters={STEPS}, val_interval={STEPS // 4})
val_cfg = dict()
val_evaluator = dict(type="FaultMetric")
val_dataloader = dict(
    dataset=dict(type="FaultData"), batch_size=4, num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=dict(type="default_collate"))
"""  # added to the first


@DATASETS.register_module()
class FaultData(torch.utils.data.Dataset):
    """Samples that are augmented with numbers of all three generators."""

    metainfo = dict(classes=("one",))

    def __len__(self) -> int:
        return 4 * PER_EPOCH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = torch.randn(64) + random.random() + float(np.random.rand())
        return dict(inputs=torch.full((64,), index / 10) + noise)


@MODELS.register_module()
class FaultModel(BaseModel):
    """Batch norm and dropout between two layers."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1)
        )

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor] | list[torch.Tensor]:
        """The loss of a batch; what is predicted of each sample where it is evaluated."""
        if mode == "predict":
            return list(self.layers(inputs)[:, 0])
        return dict(loss=nn.functional.mse_loss(self.layers(inputs), inputs.sum(1, keepdim=True)))


@METRICS.register_module()
class FaultMetric(BaseMetric):
    """The mean of what is predicted, in an evaluation that lasts long enough to be met by a fault."""

    def process(self, data_batch: dict, data_samples: Sequence[torch.Tensor]) -> None:
        """Keep a batch."""
        self.results += [float(sample) for sample in data_samples]
        time.sleep(0.02)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """The mean."""
        return dict(level=float(np.mean(results)))


@HOOKS.register_module()
class RecordHook(Hook):
    """Append process, number of the step and loss, to the last bit, to the file that FAULTS_RECORD names.

    Evaluations go into another beside it: the number of the step as each begins, with the metric as it ends.
    """

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Append a line, in one write."""
        self._append(f"{get_rank()} {os.getpid()} {runner.iter + 1} {float(outputs['loss']).hex()}")  # type: ignore[index]

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Append a line once an evaluation has begun."""
        if batch_idx == 1:
            self._append(f"{runner.iter}", EVALUATIONS)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Append a line."""
        self._append(f"{runner.iter} {(metrics or {})['level'].hex()}", EVALUATIONS)

    @staticmethod
    def _append(line: str, beside: str = "") -> None:
        with open(os.environ["FAULTS_RECORD"] + beside, "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


def train(arguments: Sequence[str]) -> None:
    """Train as the toolboxes do."""
    parser = ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--work-dir")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--launcher", default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    args = parser.parse_args(arguments)
    os.environ.setdefault("LOCAL_RANK", "0")
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    config.work_dir, config.resume, config.launcher = args.work_dir, args.resume, args.launcher
    Runner.from_cfg(config).train()
