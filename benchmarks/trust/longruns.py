"""Runs that become NaN or infinite, and boxes that make them so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement, InstanceData

from eyetoy_mm.engine.hooks import CheckDetDataHook, StopOnNonFiniteHook


def _after_steps(folder: Path) -> SimpleNamespace:
    """What the hooks see of a run that has saved a checkpoint."""
    (folder / "last_checkpoint").write_text(str(folder / "iter_4000.pth"))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    return SimpleNamespace(model=model, optim_wrapper=wrapper, iter=4210, hooks=[], work_dir=str(folder))


def _batch(**fields: object) -> dict:
    sample = BaseDataElement(metainfo=dict(img_path="train/0042.jpg"))
    for name, value in fields.items():
        setattr(sample, name, value)
    return dict(data_samples=[sample])


def loss_is_nan(folder: Path) -> None:
    """One term of the loss becomes NaN."""
    losses = dict(loss=math.nan, loss_cls=0.3, loss_bbox=math.nan)
    StopOnNonFiniteHook().after_train_iter(_after_steps(folder), 4210, _batch(), losses)


def gradient_is_infinite(folder: Path) -> None:
    """The loss is fine and its gradient is not."""
    runner, hook = _after_steps(folder), StopOnNonFiniteHook()
    hook.before_train(runner)
    loss = runner.model(torch.zeros(1, 2)).sum() + (runner.model[0].weight[0] * 0).abs().sqrt().sum()
    runner.optim_wrapper.update_params(loss)
    hook.after_train_iter(runner, 4210, _batch(), dict(loss=loss))


def weights_are_nan(folder: Path) -> None:
    """A checkpoint is about to be saved with weights that are NaN."""
    weights = {"backbone.norm.running_var": torch.tensor([1.0, math.nan]), "head.weight": torch.ones(2)}
    StopOnNonFiniteHook().before_save_checkpoint(_after_steps(folder), dict(state_dict=weights))


def box_without_width(folder: Path) -> None:
    """A crop leaves a box of an empty mask."""
    boxes = torch.tensor([[3.0, 4.0, 20.0, 30.0], [128.0, 0.0, 128.0, 0.0]])
    CheckDetDataHook().before_train_iter(_after_steps(folder), 0, _batch(gt_instances=InstanceData(bboxes=boxes)))


CASES: dict[str, Callable[[Path], None]] = {
    "a term of the loss is NaN": loss_is_nan,
    "a gradient is not finite": gradient_is_infinite,
    "weights are NaN when a checkpoint is to be saved": weights_are_nan,
    "a crop leaves a box without width": box_without_width,
}
