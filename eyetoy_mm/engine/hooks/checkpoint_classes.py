"""The classes that a checkpoint was trained for, and those of the data that it is used on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.compat.checkpoint_loading import LAST_READ
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CompareClassesHook(Hook):
    """Refuse to evaluate a checkpoint on data that have its classes in another order, and tell it in a training.

    A head gives numbers, and only the file knows which class each was. Data of other names are another matter: a model
    may be evaluated on them, and its classes be called otherwise there, which is told.

    Args:
        split: Of the data: ``"train"`` or ``"test"``.
    """

    priority = "VERY_HIGH"

    def __init__(self, split: Literal["train", "test"]) -> None:
        self.split = split

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare.

        Raises:
            UserError: A class of the test data has another label in the checkpoint.
        """
        loop = runner.test_loop if self.split == "test" else runner.train_loop
        now = _classes(getattr(loop.dataloader.dataset, "metainfo", None))
        before = _classes(_saved(checkpoint))
        label = _first_difference(before, now)
        if label is None or (self.split == "train" and len(before) != len(now)):
            return  # heads for another number start afresh
        first, second = before[label], now[label]
        told = f"{LAST_READ.get()}: label {label} is {first!r} there and {second!r} in the {self.split} data"
        moved = second.lower() in [name.lower() for name in before]
        if moved and self.split == "test":
            raise UserError(
                f"{told}, which is another label there: what is predicted would be scored as other classes. Set "
                "metainfo=dict(classes=...) of the test data to the classes of the checkpoint, in their order"
            )
        if moved:
            runner.logger.warning(f"{told}: its heads begin with other classes")
        elif self.split == "test":
            runner.logger.warning(f"{told}: scores are right where both mean the same")


def _saved(checkpoint: dict[str, Any]) -> Any:
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    return meta.get("dataset_meta") or {"classes": meta.get("CLASSES")}  # OpenMMLab's before 2.0


def _classes(metainfo: Any) -> Sequence[str]:
    found = metainfo.get("classes") if isinstance(metainfo, dict) else None
    names = list(found) if isinstance(found, list | tuple) else []
    return names if all(isinstance(name, str) for name in names) else []


def _first_difference(before: Sequence[str], now: Sequence[str]) -> int | None:
    """The first label that has two names; None where all have one, whatever their case."""
    pairs = enumerate(zip(before, now))
    return next((label for label, (one, other) in pairs if one.lower() != other.lower()), None)
