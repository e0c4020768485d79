"""Hooks for mmengine's Runner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class EvaluateUntrainedHook(Hook):
    """Evaluate once before the first iteration, so that a log shows what training added. Does nothing on resume."""

    priority = "LOWEST"  # after CheckpointHook.before_train, which prepares what saving a best checkpoint needs

    def before_train(self, runner: Runner) -> None:
        """Run the validation loop."""
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()


@HOOKS.register_module()
class CheckSegLabelsHook(Hook):
    """Refuse segmentation labels that the model has no class for, before they fail deep inside a kernel.

    Args:
        ignore_index: The label that the loss ignores.
    """

    priority = "VERY_HIGH"

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Check every label map of the batch.

        Raises:
            UserError: A label out of range, with the file it is in.
        """
        num_classes = _unwrapped(runner).decode_head.num_classes
        for sample in (data_batch or {}).get("data_samples", ()):
            labels = sample.gt_sem_seg.data
            wrong = labels[(labels != self.ignore_index) & ((labels < 0) | (labels >= num_classes))]
            if wrong.numel():
                raise UserError(
                    f"{sample.metainfo.get('seg_map_path')} has label {int(wrong[0])} after loading, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}, {self.ignore_index} to ignore). Check "
                    "the masks, num_classes, and reduce_zero_label, which takes 1 from every label"
                )


@HOOKS.register_module()
class CheckClsLabelsHook(Hook):
    """Refuse class labels that the model has no output for, and datasets whose classes are not the model's.

    Models whose head has no ``num_classes`` are not checked, nor classes that a dataset does not name.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of the training and the validation set with the model's, and with each other.

        Raises:
            UserError: They differ.
        """
        classes = self._check_classes(runner, runner.train_loop.dataloader)
        if runner.val_loop is None:
            return
        val_classes = self._check_classes(runner, runner.val_loop.dataloader)
        if classes and val_classes and tuple(classes) != tuple(val_classes):
            pairs = enumerate(zip(classes, val_classes))
            label, (first, second) = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
            raise UserError(
                f"label {label} is {first!r} in training and {second!r} in validation: both need "
                "the same classes in the same order. Check the class folders, or give both datasets the same `classes`"
            )

    def before_test(self, runner: Runner) -> None:
        """Compare the classes of the test set with the model's.

        Raises:
            UserError: They differ.
        """
        self._check_classes(runner, runner.test_loop.dataloader)

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None, mode: str = "train") -> None:
        """Check every label of a batch, in training, validation and test.

        Raises:
            UserError: A label out of range, with the image that has it.
        """
        num_classes = _num_classes(runner)
        if num_classes is None:
            return
        for sample in (data_batch or {}).get("data_samples", ()):
            if "gt_label" not in sample:
                continue
            labels = sample.gt_label
            wrong = labels[(labels < 0) | (labels >= num_classes)]
            if wrong.numel():
                raise UserError(
                    f"{sample.metainfo.get('img_path', 'an image')} has label {int(wrong[0])}, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}). Check the labels, and num_classes in "
                    "model.head and data_preprocessor"
                )

    def _check_classes(self, runner: Runner, dataloader: DataLoader) -> Sequence[str]:
        num_classes = _num_classes(runner)
        if num_classes is None:
            return ()
        classes = getattr(dataloader.dataset, "metainfo", {}).get("classes") or ()
        if classes and len(classes) != num_classes:
            raise UserError(
                f"the model has num_classes={num_classes}, but {type(dataloader.dataset).__name__} has {len(classes)} "
                f"classes ({classes[0]}, ..., {classes[-1]}). Set num_classes={len(classes)} in model.head and "
                "data_preprocessor, or check the class folders"
            )
        preprocessor = _unwrapped(runner).data_preprocessor
        if getattr(preprocessor, "to_onehot", False) and preprocessor.num_classes != num_classes:
            raise UserError(
                f"data_preprocessor has num_classes={preprocessor.num_classes}, but model.head has {num_classes}; "
                "mixed images need the same number in both"
            )
        return classes


@HOOKS.register_module()
class CheckDetDataHook(Hook):
    """Refuse datasets whose classes are not as many as a detector's heads expect, or differ in training and validation.

    Heads named ``bbox_head``, ``mask_head`` and ``panoptic_head`` are checked, wherever they are in the model. What the
    annotation files hold is checked before anything is built, by :func:`eyetoy_mm.engine.config.check_data`.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of the training and the validation set with the heads', and with each other.

        Raises:
            UserError: They differ.
        """
        classes = self._check_classes(runner, runner.train_loop.dataloader)
        if runner.val_loop is not None:
            val_classes = self._check_classes(runner, runner.val_loop.dataloader)
            _check_same(classes, val_classes, "Give both datasets the same metainfo=dict(classes=(...))")

    def before_test(self, runner: Runner) -> None:
        """Compare the classes of the test set with the heads'.

        Raises:
            UserError: They differ.
        """
        self._check_classes(runner, runner.test_loop.dataloader)

    def _check_classes(self, runner: Runner, dataloader: DataLoader) -> Sequence[str]:
        classes = getattr(dataloader.dataset, "metainfo", {}).get("classes") or ()
        heads = {
            name: head.num_classes
            for name, head in _unwrapped(runner).named_modules()
            if re.search(r"(^|\.)(bbox|mask|panoptic)_head(\.\d+)?$", name)  # numbered in cascades
            and hasattr(head, "num_classes")
            and not getattr(head, "class_agnostic", False)  # one mask for whatever class
        }
        wrong = [f"model.{name} has num_classes={count}" for name, count in heads.items() if count != len(classes)]
        if classes and wrong:
            raise UserError(
                f"{', '.join(wrong)}, but {type(dataloader.dataset).__name__} has {len(classes)} classes "
                f"({classes[0]}, ..., {classes[-1]}). Set num_classes={len(classes)} in each, or check "
                "metainfo=dict(classes=(...)) of the dataset"
            )
        return classes


def _check_same(train: Sequence[str], val: Sequence[str], advice: str) -> None:
    """Refuse classes that differ in training and validation; as many in both, or none where they have no names."""
    for label, (first, second) in enumerate(zip(train, val)):
        if first != second:
            raise UserError(
                f"label {label} is {first!r} in training and {second!r} in validation: both need the same classes in "
                f"the same order. {advice}"
            )


def _unwrapped(runner: Runner) -> Any:  # a module; types of its attributes are not known
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _num_classes(runner: Runner) -> int | None:
    return getattr(getattr(_unwrapped(runner), "head", None), "num_classes", None)
