"""A training run of mmengine that takes a second and puts into its checkpoints what large ones contain.

Imports nothing of eyetoy_mm, so that an interpreter without it can write checkpoints as released mmengine does.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

if "CompatTinyModel" not in MODELS:

    @MODELS.register_module()
    class CompatTinyModel(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)
            self.norm = torch.nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            out = self.norm(self.linear(x))
            loss = (out - y).square()
            return {"loss": loss.mean(), "loss_first": loss[:, 0].mean()} if mode == "loss" else list(loss.mean(1))

    @DATASETS.register_module()
    class CompatTinyDataset(torch.utils.data.Dataset):
        metainfo = {"classes": ("a", "b"), "palette": np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)}

        def __init__(self) -> None:
            generator = torch.Generator().manual_seed(0)
            self.x = torch.randn(12, 3, generator=generator)
            self.y = torch.randn(12, 2, generator=generator)

        def __len__(self) -> int:
            return 12

        def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
            return {"x": self.x[i], "y": self.y[i]}

    @METRICS.register_module()
    class CompatTinyMetric(BaseMetric):
        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results.extend(float(x) for x in data_samples)

        def compute_metrics(self, results: list) -> dict:
            mean = float(np.mean(results))
            return {"score": np.float64(-mean), "loss": np.float32(mean), "count": len(results), "rows": np.ones(2)}


def config(work_dir: str, name: str, **kwargs: Any) -> Config:
    """The config of four epochs.

    Args:
        work_dir: Where it writes.
        name: Unique per process; mmengine keeps logs under it.
        **kwargs: More arguments of the config, such as resume and load_from, or others in place of these.
    """
    loader = dict(
        dataset=dict(type="CompatTinyDataset"), batch_size=4, num_workers=0, collate_fn=dict(type="default_collate")
    )
    return Config(
        dict(
            model=dict(type="CompatTinyModel"),
            work_dir=work_dir,
            experiment_name=name,
            train_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=True)),
            val_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=False)),
            train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=1),
            val_cfg=dict(),
            val_evaluator=dict(type="CompatTinyMetric"),
            optim_wrapper=dict(
                type="OptimWrapper",
                optimizer=dict(type="AdamW", lr=0.01, betas=(0.8, 0.9)),
                clip_grad=dict(max_norm=1.0),
            ),
            param_scheduler=[
                dict(type="OneCycleLR", eta_max=0.05, total_steps=12, by_epoch=False),
                dict(type="MultiStepParamScheduler", param_name="weight_decay", milestones=[1, 3]),
            ],
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3, save_best="score", rule="greater"),
            ),
            custom_hooks=[dict(type="EMAHook")],
            randomness=dict(seed=3),
            log_level="ERROR",
        )
        | kwargs
    )


def build(work_dir: str, name: str, **kwargs: Any) -> Runner:
    """A runner of :func:`config`."""
    return Runner.from_cfg(config(work_dir, name, **kwargs))


if __name__ == "__main__":
    build(sys.argv[1], "writer").train()
