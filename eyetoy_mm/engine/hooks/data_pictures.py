"""Pictures of what a run learns from, in its work dir: how often each class is, and a batch as the model gets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.hooks.common import kind_of, samples_of, save_figure, told_if_it_fails
from eyetoy_mm.registry import HOOKS

LABELS, BATCH = "labels.png", "train_batch.png"
_MOST = 12  # images of a batch that are painted


@HOOKS.register_module()
class DataPicturesHook(Hook):
    """Draw ``labels.png`` before the first step, and ``train_batch.png`` of the first batch.

    The former is of lists and annotation files, and of some masks (see :mod:`~eyetoy_mm.engine.label_counts`), so that
    it takes no longer for a large data set. The latter shows images as the pipeline leaves them; what the model's data
    preprocessor does to whole batches (mixup) comes after. A run whose pictures fail goes on, and its log says why.
    """

    priority = "LOW"

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Draw how often each class is."""
        self._painted = False
        target = Path(runner.work_dir, LABELS)
        with told_if_it_fails(runner, f"{target} was not drawn"):
            from eyetoy_mm.engine.dataset_picture import picture_dataset
            from eyetoy_mm.engine.label_counts import count_labels

            loop: Any = runner.train_loop
            report = count_labels("train", loop.dataloader.dataset)
            if not any(report.counts.values()):
                return  # a dataset that does not say what its labels are
            save_figure(picture_dataset(report), target)
            runner.logger.info(f"How often each class is in training: {target}")

    @master_only
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Paint the first batch."""
        if self._painted:
            return
        self._painted = True
        target = Path(runner.work_dir, BATCH)
        with told_if_it_fails(runner, f"{target} was not drawn"):
            from eyetoy_mm.engine.painting import make_painter
            from eyetoy_mm.engine.picture_grids import grid, save
            from eyetoy_mm.engine.preprocessing import as_picture, held_as

            loop: Any = runner.train_loop
            dataset = loop.dataloader.dataset
            painter = make_painter(runner.default_scope.scope_name, dataset.metainfo)
            _, order = held_as(kind_of(dataset))
            pairs = images_of(data_batch, _MOST)
            pictures = [painter.paint(as_picture(image, order), sample, truth=True) for image, sample in pairs]
            if pictures:
                save(grid(pictures), target)
                runner.logger.info(f"The first batch, as it is trained on: {target}")


def images_of(data_batch: Any, most: int) -> Iterator[tuple[np.ndarray, Any]]:
    """Images of a batch ``(H, W, C)``, as they are in it, each with its data sample."""
    inputs: Any = data_batch.get("inputs") if isinstance(data_batch, dict) else None
    if inputs is None or isinstance(inputs, dict):
        return
    for image, sample in zip(inputs[:most], samples_of(data_batch), strict=False):
        yield image.detach().cpu().numpy().transpose(1, 2, 0), sample
