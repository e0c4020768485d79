"""What a checkpoint was trained for, its classes and how images came to it, and what it is used on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.compat.checkpoint_loading import LAST_READ
from eyetoy_mm.datasets.files import spelt_alike
from eyetoy_mm.engine.resume import saved_config
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS
from eyetoy_mm.state_dicts import meta_of


@HOOKS.register_module()
class CompareClassesHook(Hook):
    """Refuse to evaluate a checkpoint on data that have its classes in another order, and tell it in a training.

    A head gives numbers, and only the file knows which class each was. Data of other names are another matter: a model
    may be evaluated on them, and its classes be called otherwise there, which is told. So is another normalisation of
    images than that of the run that saved it.

    Args:
        split: Of the data: ``"train"`` or ``"test"``.
    """

    priority = "VERY_HIGH"

    def __init__(self, split: Literal["train", "test"]) -> None:
        self.split = split

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare; a run that goes on has been compared as a whole.

        Raises:
            UserError: A class of the test data has another label in the checkpoint.
        """
        self._compare_classes(runner, checkpoint)
        before = normalisation(saved_config(checkpoint))
        now = normalisation(runner.cfg) if before and not runner.cfg.get("resume") else before
        if now != before:
            told = [", ".join(f"{key}={value}" for key, value in one.items()) for one in (before, now)]
            runner.logger.warning(
                f"{LAST_READ.get()}: images came to it by {told[0]}, and come by {told[1]}, which are other numbers "
                "than those that it learnt from. Set data_preprocessor as it was, unless this is meant"
            )

    def _compare_classes(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        loop = runner.test_loop if self.split == "test" else runner.train_loop
        now = _classes(getattr(loop.dataloader.dataset, "metainfo", None))
        before = _classes(_saved(checkpoint))
        label = _first_difference(before, now)
        if label is None or (self.split == "train" and len(before) != len(now)):
            return  # heads for another number start afresh
        first, second = before[label], now[label]
        told = f"{LAST_READ.get()}: label {label} is {first!r} there and {second!r} in the {self.split} data"
        moved = spelt_alike(second) in map(spelt_alike, before)
        if moved and self.split == "test":
            raise UserError(
                f"{told}, which is another label there: what is predicted would be scored as other classes. Set "
                "metainfo=dict(classes=...) of the test data to the classes of the checkpoint, in their order"
            )
        if moved:
            runner.logger.warning(f"{told}: its heads begin with other classes")
        elif self.split == "test":
            runner.logger.warning(f"{told}: scores are right where both mean the same")


def normalisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers by which images are normalised, and whether their channels are turned; empty where a step does it."""
    model, loader = config.get("model") or {}, config.get("train_dataloader") or config.get("test_dataloader") or {}
    if not isinstance(model, Mapping) or "Normalize" in str(loader):
        return {}
    found = model.get("data_preprocessor") or config.get("data_preprocessor")
    if not isinstance(found, Mapping):
        return {}
    turned = any(found.get(key) for key in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb"))
    numbers = {key: found.get(key) for key in ("mean", "std")}
    return {key: None if x is None else list(x) for key, x in numbers.items()} | {"channels turned": turned}


def _saved(checkpoint: dict[str, Any]) -> Any:
    meta = meta_of(checkpoint)
    return meta.get("dataset_meta") or {"classes": meta.get("CLASSES")}  # OpenMMLab's before 2.0


def _classes(metainfo: Any) -> Sequence[str]:
    found = metainfo.get("classes") if isinstance(metainfo, dict) else None
    names = list(found) if isinstance(found, list | tuple) else []
    return names if all(isinstance(name, str) for name in names) else []


def _first_difference(before: Sequence[str], now: Sequence[str]) -> int | None:
    """The first label that has two names; None where all have one, whatever their case."""
    pairs = enumerate(zip(before, now))
    return next((label for label, (one, other) in pairs if one.lower() != other.lower()), None)
