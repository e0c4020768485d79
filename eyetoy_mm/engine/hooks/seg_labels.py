"""Labels and classes of segmentation checked against the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from eyetoy_mm.engine.hooks.common import check_same, name_of, samples_of, unwrapped
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CheckSegLabelsHook(Hook):
    """Refuse labels that a model has no class for, data of other classes, and data of which everything is ignored.

    Decode heads are looked at, one or several; a model without is not checked.

    Args:
        ignore_index: A label that may be there besides those that the heads ignore.
        patience: After so many batches of which every pixel is ignored training is stopped.
    """

    priority = "VERY_HIGH"

    def __init__(self, ignore_index: int = 255, patience: int = 20) -> None:
        self.ignore_index = ignore_index
        self.patience = patience
        self._labelled: dict[str, bool] = {}  # by mode, whether a pixel counted
        self._empty: dict[str, list[str]] = {}

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of the training and the validation set with the heads', and with each other.

        Raises:
            UserError: They differ.
        """
        classes = self._check_classes(runner, runner.train_loop.dataloader)
        if runner.val_loop is not None:
            val_classes = self._check_classes(runner, runner.val_loop.dataloader)
            check_same(classes, val_classes, "Give both datasets the same metainfo=dict(classes=(...))")

    def before_test(self, runner: Runner) -> None:
        """Compare the classes of the test set with the heads'.

        Raises:
            UserError: They differ.
        """
        self._check_classes(runner, runner.test_loop.dataloader)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self._labelled.pop("val", None)
        self._empty.pop("val", None)

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        """Check every label map of a batch, in training, validation and test.

        Raises:
            UserError: A label out of range, with the file it is in; or nothing but ignored labels so far.
        """
        heads = dict(_heads(unwrapped(runner)))
        samples = [sample for sample in samples_of(data_batch) if "gt_sem_seg" in sample]
        if not heads or not samples:
            return
        num_classes = max(head.num_classes for head in heads.values())
        ignored = {self.ignore_index, *(head.ignore_index for head in heads.values() if hasattr(head, "ignore_index"))}
        paths = []
        for sample in samples:
            labels = sample.gt_sem_seg.data
            path = str(sample.metainfo.get("seg_map_path") or sample.metainfo.get("img_path"))
            counted = labels != self.ignore_index
            for label in ignored:
                counted &= labels != label
            wrong = labels[counted & ((labels < 0) | (labels >= num_classes))]
            if wrong.numel():
                raise UserError(
                    f"{path} has label {int(wrong[0])} after loading, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}, {self.ignore_index} to ignore). Check "
                    "the masks, num_classes, and reduce_zero_label, which takes 1 from every label"
                )
            if self._labelled.get(mode) or bool(counted.any()):
                self._labelled[mode] = True
            else:
                paths.append(path)
        if not self._labelled.get(mode):
            self._empty.setdefault(mode, []).extend(paths)
            if mode == "train" and batch_idx + 1 >= self.patience:
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

    def _check_classes(self, runner: Runner, dataloader: DataLoader) -> Sequence[str]:
        classes = getattr(dataloader.dataset, "metainfo", {}).get("classes") or ()
        wrong = [
            f"model.{name} has num_classes={head.num_classes}"
            for name, head in _heads(unwrapped(runner))
            if head.num_classes != len(classes)
        ]
        if classes and wrong:
            raise UserError(
                f"{', '.join(wrong)}, but {name_of(dataloader.dataset)} has {len(classes)} classes "
                f"({classes[0]}, ..., {classes[-1]}). Set num_classes={len(classes)} in each, or check "
                "metainfo=dict(classes=(...)) of the dataset"
            )
        return classes


def _heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Decode and auxiliary heads with a number of classes; cascades and lists have several."""
    for kind in ("decode_head", "auxiliary_head"):
        heads = getattr(model, kind, None)
        several = isinstance(heads, nn.ModuleList)
        for index, head in enumerate(heads) if several else [("", heads)]:  # type: ignore[arg-type]
            if isinstance(getattr(head, "num_classes", None), int):
                yield f"{kind}.{index}" if several else kind, head
