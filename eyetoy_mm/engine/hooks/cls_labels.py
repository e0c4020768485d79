"""Labels of classification checked against the model."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.runner import Runner
from torch.utils.data import DataLoader
from typing_extensions import override

from eyetoy_mm.engine.hooks.common import CheckClassesHook, name_of, unwrapped
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CheckClsLabelsHook(CheckClassesHook):
    """Refuse class labels that the model has no output for, and datasets whose classes are not the model's.

    Models whose head has no ``num_classes`` are not checked, nor classes that a dataset does not name.
    """

    advice = "Check the class folders, or give both datasets the same `classes`"

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

    @override
    def check_classes(self, runner: Runner, dataloader: DataLoader) -> Sequence[str]:
        num_classes = _num_classes(runner)
        if num_classes is None:
            return ()
        classes = getattr(dataloader.dataset, "metainfo", {}).get("classes") or ()
        if classes and len(classes) != num_classes:
            raise UserError(
                f"the model has num_classes={num_classes}, but {name_of(dataloader.dataset)} has {len(classes)} "
                f"classes ({classes[0]}, ..., {classes[-1]}). Set num_classes={len(classes)} in model.head and "
                "data_preprocessor, or check the class folders"
            )
        preprocessor = unwrapped(runner).data_preprocessor
        if getattr(preprocessor, "to_onehot", False) and preprocessor.num_classes != num_classes:
            raise UserError(
                f"data_preprocessor has num_classes={preprocessor.num_classes}, but model.head has {num_classes}; "
                "mixed images need the same number in both"
            )
        return classes


def _num_classes(runner: Runner) -> int | None:
    return getattr(getattr(unwrapped(runner), "head", None), "num_classes", None)
