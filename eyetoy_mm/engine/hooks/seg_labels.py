"""Labels of segmentation checked against the model."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


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
        num_classes = unwrapped(runner).decode_head.num_classes
        for sample in (data_batch or {}).get("data_samples", ()):
            labels = sample.gt_sem_seg.data
            wrong = labels[(labels != self.ignore_index) & ((labels < 0) | (labels >= num_classes))]
            if wrong.numel():
                raise UserError(
                    f"{sample.metainfo.get('seg_map_path')} has label {int(wrong[0])} after loading, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}, {self.ignore_index} to ignore). Check "
                    "the masks, num_classes, and reduce_zero_label, which takes 1 from every label"
                )
