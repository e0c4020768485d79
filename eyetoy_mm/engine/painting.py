"""Pictures of what a model predicts, by the toolbox' own visualizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from mmengine.structures import BaseDataElement
from typing_extensions import override

from eyetoy_mm.errors import UserError


class Painter:
    """Paints data samples of one toolbox over their images.

    Args:
        dataset_meta: ``classes``, and ``palette`` where there is one.
        score_threshold: Detections with a lower score are not painted.
    """

    def __init__(self, dataset_meta: Mapping[str, Any], score_threshold: float = 0.3) -> None:
        self.dataset_meta = dict(dataset_meta)
        self.score_threshold = score_threshold
        self.visualizer = self._make_visualizer()

    def _make_visualizer(self) -> Any:
        raise NotImplementedError

    def paint(self, image: np.ndarray, sample: BaseDataElement, truth: bool = False) -> np.ndarray:
        """Paint the prediction over the image.

        Args:
            image: BGR ``(H, W, 3)`` of 8 bits.
            sample: The toolbox' data sample.
            truth: Paint the ground truth, too, where the sample has it: on the left of the prediction, or in words.

        Returns:
            RGB of 8 bits.
        """
        self._add(mmcv.bgr2rgb(image), sample, truth)
        return self.visualizer.get_image()

    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        raise NotImplementedError


class SegPainter(Painter):
    """Label maps of mmseg."""

    @override
    def _make_visualizer(self) -> Any:
        from mmseg.visualization import SegLocalVisualizer

        if self.dataset_meta.get("palette") is None:
            colors = np.random.default_rng(0).integers(0, 256, (len(self.dataset_meta["classes"]), 3))
            self.dataset_meta["palette"] = colors.tolist()
        visualizer = SegLocalVisualizer(alpha=0.6)
        visualizer.dataset_meta = self.dataset_meta
        return visualizer

    @override
    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        panels = []
        for name, there in (("gt_sem_seg", truth), ("pred_sem_seg", True)):
            if there and name in sample:  # one by one: of both, mmseg's visualizer keeps the prediction alone
                gt = name == "gt_sem_seg"
                self.visualizer.add_datasample("image", image, sample, draw_gt=gt, draw_pred=not gt, with_labels=False)
                panels.append(self.visualizer.get_image())
        self.visualizer.set_image(np.hstack(panels or [image]))


class DetPainter(Painter):
    """Boxes, masks and segments of mmdet."""

    @override
    def _make_visualizer(self) -> Any:
        from mmdet.visualization import DetLocalVisualizer

        visualizer = DetLocalVisualizer()
        palette = self.dataset_meta.get("palette") or "random"
        palette = (
            palette if isinstance(palette, str) else [tuple(color) for color in palette]
        )  # lists it takes for many
        visualizer.dataset_meta = {**self.dataset_meta, "palette": palette}
        return visualizer

    @override
    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        sample = _with_plain_boxes(sample)
        self.visualizer.add_datasample("image", image, sample, draw_gt=truth, pred_score_thr=self.score_threshold)


def _with_plain_boxes(sample: Any) -> Any:
    """A sample whose boxes are tensors, as visualizers take them; pipelines leave them in a class of mmdet's."""
    if not hasattr(getattr(sample.get("gt_instances"), "bboxes", None), "tensor"):
        return sample
    instances = sample.gt_instances.clone()
    instances.bboxes = instances.bboxes.tensor
    sample = sample.clone()
    sample.gt_instances = instances
    return sample


class ClsPainter(Painter):
    """Classes of mmpretrain; the best and its score are written on the image."""

    @override
    def _make_visualizer(self) -> Any:
        from mmpretrain.visualization import UniversalVisualizer

        return UniversalVisualizer()

    @override
    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        self.visualizer.visualize_cls(image, sample, classes=self.dataset_meta.get("classes"), draw_gt=truth)


_PAINTERS: dict[str, type[Painter]] = {"mmseg": SegPainter, "mmdet": DetPainter, "mmpretrain": ClsPainter}


def make_painter(scope: str | None, dataset_meta: Mapping[str, Any], score_threshold: float = 0.3) -> Painter:
    """The painter of a toolbox.

    Raises:
        UserError: It is none of the three.
    """
    check_scope(scope)
    return _PAINTERS[str(scope)](dataset_meta, score_threshold)


def check_scope(scope: str | None) -> None:
    """Check that a config is for a toolbox that this package can infer with.

    Raises:
        UserError: It is for another.
    """
    if scope not in _PAINTERS:
        raise UserError(f"default_scope of the config is {scope!r}; it must be one of {', '.join(_PAINTERS)}")
