"""Hooks for mmengine's Runner."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from eyetoy_mm.engine.errors import UserError
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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes = model.decode_head.num_classes
        for sample in (data_batch or {}).get("data_samples", ()):
            labels = sample.gt_sem_seg.data
            wrong = labels[(labels != self.ignore_index) & ((labels < 0) | (labels >= num_classes))]
            if wrong.numel():
                raise UserError(
                    f"{sample.metainfo.get('seg_map_path')} has label {int(wrong[0])} after loading, but the model has "
                    f"num_classes={num_classes} (labels 0 to {num_classes - 1}, {self.ignore_index} to ignore). Check "
                    "the masks, num_classes, and reduce_zero_label, which takes 1 from every label"
                )
