"""Runs that become NaN or infinite, and boxes that make them so."""

from __future__ import annotations

import copy
import math
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement, InstanceData
from torch.utils.data import DataLoader, Dataset

from benchmarks.trust.weights import config
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import CheckDetDataHook, StopOnNonFiniteHook
from eyetoy_mm.engine.hooks.finite import Told, broken_step
from eyetoy_mm.engine.launch import evaluate, train


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


class _Bitmaps:
    """As mmdet's ``BitmapMasks`` keep them."""

    def __init__(self, masks: np.ndarray) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)


def mask_without_a_pixel(folder: Path) -> str:
    """A crop takes a corner of a box, and nothing of the mask in it; the run goes on, and says so."""
    masks, told = np.zeros((2, 128, 128), np.uint8), []
    masks[0, 4:30, 3:20] = 1
    objects = InstanceData(bboxes=torch.tensor([[3.0, 4.0, 20.0, 30.0], [120.0, 0.0, 128.0, 9.0]]))
    objects.masks = _Bitmaps(masks)
    runner = SimpleNamespace(logger=SimpleNamespace(warning=told.append))
    CheckDetDataHook().before_train_iter(runner, 0, _batch(gt_instances=objects))
    return told[0]


def nan_of_one_process(folder: Path) -> str:
    """What both of two processes say: gradients are exchanged, so that both have NaN."""
    gradients = ["the gradient of 4 of 4 parameters: 0.weight, 0.bias, 1.weight, 1.bias"]
    fine = Told([], gradients, "", ["train/0007.jpg"], [])
    return broken_step(4211, [fine, Told(["loss is nan"], gradients, "", ["train/0042.jpg"], [])])


class _Torn(Dataset):
    """Images of which one ends the process that loads it, as a full memory does."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def worker_is_killed(folder: Path) -> None:
    """After seven iterations, with a checkpoint of the fourth."""
    (folder / "last_checkpoint").write_text("iter_4.pth")
    hub = SimpleNamespace(runtime_info=dict(iter=7, last_ckpt=f"{folder}/iter_4.pth"))
    with explained_errors(Config(dict(model={}, work_dir=str(folder)))) as run:
        run.runner = SimpleNamespace(message_hub=hub)  # type: ignore[assignment]
        list(DataLoader(_Torn(), num_workers=1))


def first_evaluation(folder: Path, evaluator: Any, best: str | None = None, **dataset: Any) -> None:
    """A run of a classifier, of whose evaluation something is wrong that training never touches."""
    settings = config(folder)
    loader = copy.deepcopy(settings.train_dataloader)
    loader.dataset.update(dataset)
    settings.update(val_dataloader=loader, val_evaluator=evaluator, val_cfg=dict())
    settings.default_hooks.checkpoint.save_best = best
    train(settings)


def numbers_of_another_scale(folder: Path) -> None:
    """Mean and standard deviation as torchvision writes them, for images of 0 to 1."""
    numbers = dict(num_classes=2, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    train(config(folder, data_preprocessor=numbers))


def loss_of_no_weight(folder: Path) -> None:
    """A loss that is switched off."""
    settings = config(folder, train_cfg=dict(by_epoch=True, max_epochs=3))
    settings.model.head.loss.loss_weight = 0.0
    train(settings)


def test_of_no_image(folder: Path) -> None:
    """``eyetoy test`` on a data set that is empty."""
    settings = config(folder)
    train(settings)
    loader = copy.deepcopy(settings.train_dataloader)
    loader.dataset.indices = 0
    settings.update(test_dataloader=loader, test_evaluator=dict(type="Accuracy"), test_cfg=dict())
    evaluate(settings, str(folder / "run" / "epoch_2.pth"))


CASES: dict[str, Callable[[Path], str | None]] = {
    "a term of the loss is NaN": loss_is_nan,
    "a gradient is not finite": gradient_is_infinite,
    "weights are NaN when a checkpoint is to be saved": weights_are_nan,
    "a crop leaves a box without width": box_without_width,
    "a crop leaves a mask without a pixel": mask_without_a_pixel,
    "NaN in one of two processes": nan_of_one_process,
    "a process that loads images is killed": worker_is_killed,
    "an evaluation of data without labels": partial(
        first_evaluation, evaluator=dict(type="Accuracy"), with_label=False
    ),
    "an evaluation whose metric fails": partial(
        first_evaluation, evaluator=dict(type="AveragePrecision", average="micro")
    ),
    "two metrics of one name": partial(first_evaluation, evaluator=[dict(type="Accuracy"), dict(type="Accuracy")]),
    "the best by a metric that is no number": partial(
        first_evaluation, evaluator=dict(type="ConfusionMatrix"), best="auto"
    ),
    "images normalised by numbers for 0 to 1": numbers_of_another_scale,
    "a loss of no weight": loss_of_no_weight,
    "a test of no image": test_of_no_image,
}
