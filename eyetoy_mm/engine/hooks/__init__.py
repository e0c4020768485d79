"""Hooks for mmengine's Runner, a file each; every config of ours and every run of ``eyetoy`` has those that check."""

from eyetoy_mm.engine.hooks.checkpoint_classes import CompareClassesHook
from eyetoy_mm.engine.hooks.cls_labels import CheckClsLabelsHook
from eyetoy_mm.engine.hooks.data_pictures import DataPicturesHook
from eyetoy_mm.engine.hooks.describe_run import DescribeRunHook
from eyetoy_mm.engine.hooks.det_data import CheckDetDataHook
from eyetoy_mm.engine.hooks.early_stopping import ExactEarlyStoppingHook
from eyetoy_mm.engine.hooks.evaluate_untrained import EvaluateUntrainedHook
from eyetoy_mm.engine.hooks.evaluation_pictures import EvaluationPicturesHook, WorstImagesHook
from eyetoy_mm.engine.hooks.finite import StopOnNonFiniteHook
from eyetoy_mm.engine.hooks.images import CheckImagesHook
from eyetoy_mm.engine.hooks.initialised import CheckInitialisedHook
from eyetoy_mm.engine.hooks.keep_predictions import KeepPredictionsHook
from eyetoy_mm.engine.hooks.live_progress import LiveProgressHook
from eyetoy_mm.engine.hooks.outputs import CheckOutputsHook
from eyetoy_mm.engine.hooks.paint_predictions import PaintPredictionsHook
from eyetoy_mm.engine.hooks.progress import ProgressHook
from eyetoy_mm.engine.hooks.recompute import RecomputeBlocksHook
from eyetoy_mm.engine.hooks.rehearse import RehearseEvaluationHook
from eyetoy_mm.engine.hooks.results_picture import ResultsPictureHook
from eyetoy_mm.engine.hooks.resume import CompareResumedHook
from eyetoy_mm.engine.hooks.save_on_signal import SaveOnSignalHook
from eyetoy_mm.engine.hooks.saved_buffers import EvaluateSavedBuffersHook
from eyetoy_mm.engine.hooks.seed_iterations import SeedIterationsHook
from eyetoy_mm.engine.hooks.seg_labels import CheckSegLabelsHook
from eyetoy_mm.engine.hooks.shards import ShardsHook
from eyetoy_mm.engine.hooks.split_invariant import SplitInvariantHook
from eyetoy_mm.engine.hooks.weights import PrepareWeightsHook

__all__ = [
    "CheckClsLabelsHook",
    "CheckDetDataHook",
    "CheckImagesHook",
    "CheckInitialisedHook",
    "CheckOutputsHook",
    "CheckSegLabelsHook",
    "CompareClassesHook",
    "CompareResumedHook",
    "DataPicturesHook",
    "DescribeRunHook",
    "EvaluateSavedBuffersHook",
    "EvaluateUntrainedHook",
    "EvaluationPicturesHook",
    "ExactEarlyStoppingHook",
    "KeepPredictionsHook",
    "LiveProgressHook",
    "PaintPredictionsHook",
    "PrepareWeightsHook",
    "ProgressHook",
    "RecomputeBlocksHook",
    "RehearseEvaluationHook",
    "ResultsPictureHook",
    "SaveOnSignalHook",
    "SeedIterationsHook",
    "ShardsHook",
    "SplitInvariantHook",
    "StopOnNonFiniteHook",
    "WorstImagesHook",
]
