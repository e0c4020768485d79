"""Hooks for mmengine's Runner, a file each; every config of ours and every run of ``eyetoy`` has those that check."""

from eyetoy_mm.engine.hooks.cls_labels import CheckClsLabelsHook
from eyetoy_mm.engine.hooks.det_data import CheckDetDataHook
from eyetoy_mm.engine.hooks.evaluate_untrained import EvaluateUntrainedHook
from eyetoy_mm.engine.hooks.finite import StopOnNonFiniteHook
from eyetoy_mm.engine.hooks.seg_labels import CheckSegLabelsHook

__all__ = [
    "CheckClsLabelsHook",
    "CheckDetDataHook",
    "CheckSegLabelsHook",
    "EvaluateUntrainedHook",
    "StopOnNonFiniteHook",
]
