"""Classes of detection checked against the heads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eyetoy_mm.engine.hooks.common import check_same, unwrapped
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CheckDetDataHook(Hook):
    """Refuse datasets whose classes are not as many as a detector's heads expect, or differ in training and validation.

    Heads named ``bbox_head``, ``mask_head`` and ``panoptic_head`` are checked, wherever they are in the model. What the
    annotation files hold is checked before anything is built, by :func:`eyetoy_mm.engine.data_checks.check_data`.
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
            check_same(classes, val_classes, "Give both datasets the same metainfo=dict(classes=(...))")

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
            for name, head in unwrapped(runner).named_modules()
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
