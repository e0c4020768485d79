"""Labels and classes of segmentation checked against the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.runner import Runner
from torch import nn

from eyetoy_mm.engine.hooks.common import CheckClassesHook, samples_of, unwrapped
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.registry import HOOKS

# Heads of boundaries and of depths: their num_classes is not that of the data.
_OF_OTHER_THINGS = {"STDCHead", "VPDDepthHead"}


@HOOKS.register_module()
class CheckSegLabelsHook(CheckClassesHook):
    """Refuse labels that a model has no class for, data of other classes, and data of which everything is ignored.

    Decode heads are looked at, one or several; a model without is not checked.

    Args:
        ignore_index: The label that heads ignore which do not say it.
        patience: After so many batches of which every pixel is ignored training is stopped.
    """

    def __init__(self, ignore_index: int = 255, patience: int = 20) -> None:
        self.ignore_index = ignore_index
        self.patience = patience
        self._labelled: dict[str, bool] = {}  # by mode, whether a pixel counted
        self._empty: dict[str, list[str]] = {}  # masks of batches in which none did
        self._batches = 0  # of training

    def heads(self, model: Any) -> dict[str, int]:
        """Decode and auxiliary heads; cascades and lists have several. A single output tells two classes apart."""
        return {
            name: 2 if getattr(head, "out_channels", None) == 1 else head.num_classes
            for name, head in _heads(model)
            if not any(cls.__name__ in _OF_OTHER_THINGS for cls in type(head).__mro__)
        }

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self._labelled.pop("val", None)
        self._empty.pop("val", None)

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        """Check every label map of a batch, in training, validation and test.

        Raises:
            UserError: A label out of range, with the file it is in; or nothing but ignored labels so far.
        """
        model = unwrapped(runner)
        heads = self.heads(model)
        samples = [sample for sample in samples_of(data_batch) if "gt_sem_seg" in sample]
        if not heads or not samples:
            return
        num_classes = max(heads.values())
        rules = {getattr(head, "ignore_index", self.ignore_index) for _, head in _heads(model)}
        ignored = rules if len(rules) == 1 else set()  # what one head ignores is a label to the other
        paths = []
        for sample in samples:
            labels = sample.gt_sem_seg.data
            path = str(sample.metainfo.get("seg_map_path") or sample.metainfo.get("img_path"))
            counted = ~torch.isin(labels, torch.tensor([*ignored], device=labels.device))
            wrong = labels[counted & ((labels < 0) | (labels >= num_classes))]
            if wrong.numel():
                to_ignore = f", {', '.join(map(str, sorted(ignored)))} to ignore" if ignored else ""
                raise UserError(
                    f"{path} has label {int(wrong[0])} after loading, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}{to_ignore}). Check the masks, "
                    "num_classes, ignore_index of the heads, reduce_zero_label, which takes 1 from every label, and "
                    "seg_pad_val, with which crops and batches are filled"
                )
            if self._labelled.get(mode) or bool(counted.any()):
                self._labelled[mode] = True
            else:
                paths.append(path)
        if not self._labelled.get(mode):
            self._empty.setdefault(mode, []).extend(paths)
            self._batches += mode == "train"
            if mode == "train" and self._batches >= self.patience:
                self._refuse_empty(mode)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Refuse scores of nothing.

        Raises:
            UserError: Every pixel of the validation set is ignored.
        """
        if self._empty.get("val") and not self._labelled.get("val"):
            self._refuse_empty("val")

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Refuse scores of nothing.

        Raises:
            UserError: Every pixel of the test set is ignored.
        """
        if self._empty.get("test") and not self._labelled.get("test"):
            self._refuse_empty("test")

    def _refuse_empty(self, mode: str) -> None:
        paths = self._empty[mode]
        raise UserError(
            f"every pixel of the first {len(paths)} masks of {mode} is ignored after loading ({first_few(paths, 3)}): "
            "nothing is learned or scored. Check the numbers in the masks, the classes, reduce_zero_label and "
            "ignore_index"
        )


def _heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Decode and auxiliary heads with a number of classes, by name."""
    for kind in ("decode_head", "auxiliary_head"):
        heads = getattr(model, kind, None)
        named = [(kind, heads)]
        if isinstance(heads, nn.ModuleList):
            named = [(f"{kind}.{index}", head) for index, head in enumerate(heads)]
        yield from ((name, head) for name, head in named if isinstance(getattr(head, "num_classes", None), int))
