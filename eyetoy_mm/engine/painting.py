"""Pictures of what a model predicts: label maps by our own hand, the rest by the toolbox' own visualizers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import mmcv
import numpy as np
from matplotlib import font_manager
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont
from typing_extensions import override

from eyetoy_mm.engine.colors import class_colors
from eyetoy_mm.errors import UserError


class Painter:
    """Paints data samples of one toolbox over their images.

    Args:
        dataset_meta: ``classes``, and ``palette`` where there is one.
        score_threshold: Detections with a lower score are not painted.

    Attributes:
        dataset_meta: With a colour for each class in ``palette``: see :func:`~eyetoy_mm.engine.colors.class_colors`.
    """

    def __init__(self, dataset_meta: Mapping[str, Any], score_threshold: float = 0.3) -> None:
        self.dataset_meta = dict(dataset_meta)
        if self.dataset_meta.get("classes"):
            self.dataset_meta["palette"] = class_colors(self.dataset_meta)
        self.score_threshold = score_threshold
        self.visualizer = self._make_visualizer()

    def _make_visualizer(self) -> Any:
        raise NotImplementedError

    def paint(
        self, image: np.ndarray, sample: BaseDataElement, truth: bool = False, legend: bool = False
    ) -> np.ndarray:
        """Paint the prediction over the image.

        Args:
            image: BGR ``(H, W, 3)`` of 8 bits.
            sample: The toolbox' data sample.
            truth: Paint the ground truth, too, where the sample has it: on the left of the prediction, or in words.
            legend: Put the classes of a label map, with their shares of it, on its right. Boxes have names anyway.

        Returns:
            RGB of 8 bits.
        """
        with warnings.catch_warnings():  # a box may end outside of its image: what is inside is painted
            warnings.filterwarnings("ignore", "Warning: The .* is out of bounds")
            self._add(mmcv.bgr2rgb(image), sample, truth)
        return self.visualizer.get_image()

    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        raise NotImplementedError


class SegPainter(Painter):
    """Label maps of mmseg; what else its models give (depth) is left to its visualizer."""

    alpha = 0.6  # of the colours

    @override
    def _make_visualizer(self) -> Any:
        from mmseg.visualization import SegLocalVisualizer

        visualizer = SegLocalVisualizer(alpha=self.alpha)
        visualizer.dataset_meta = self.dataset_meta
        return visualizer

    @override
    def paint(
        self, image: np.ndarray, sample: BaseDataElement, truth: bool = False, legend: bool = False
    ) -> np.ndarray:
        if "pred_sem_seg" not in sample:
            return super().paint(image, sample, truth, legend)
        photo, labels = mmcv.bgr2rgb(image), _label_map(sample.pred_sem_seg)
        panels = [self.paint_labels(photo, labels)]
        if truth and "gt_sem_seg" in sample:
            panels.insert(0, self.paint_labels(photo, _label_map(sample.gt_sem_seg)))
        if legend:
            panels.append(self.legend(labels))
        return np.hstack(panels)

    @override
    def _add(self, image: np.ndarray, sample: BaseDataElement, truth: bool) -> None:
        panels = []
        for name, there in (("gt_sem_seg", truth), ("pred_sem_seg", True)):
            if there and name in sample:  # one by one: of both, mmseg's visualizer keeps the prediction alone
                gt = name == "gt_sem_seg"
                self.visualizer.add_datasample("image", image, sample, draw_gt=gt, draw_pred=not gt, with_labels=False)
                panels.append(self.visualizer.get_image())
        self.visualizer.set_image(np.hstack(panels or [image]))

    def paint_labels(self, photo: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Colour a photo by its labels, and write the name of each class where it has most room.

        Args:
            photo: RGB ``(H, W, 3)`` of 8 bits.
            labels: ``(H, W)``; numbers that are no class are left as they are.
        """
        colors = np.array(self.dataset_meta["palette"], np.uint8)
        is_class = labels < len(colors)
        mixed = cv2.addWeighted(photo, 1 - self.alpha, colors[np.where(is_class, labels, 0)], self.alpha, 0)
        picture = Image.fromarray(np.where(is_class[..., None], mixed, photo))
        draw, font = ImageDraw.Draw(picture), _font(int(np.clip(min(labels.shape) / 28, 9, 28)))
        for label in np.flatnonzero(np.bincount(labels[is_class])):
            name = str(self.dataset_meta["classes"][label])
            place = _place(labels == label, *_size(font, name))
            if place is not None:
                draw.text(
                    place, name, "white", font, "mm", stroke_width=max(1, int(font.size / 10)), stroke_fill="black"
                )
        return np.array(picture)

    def legend(self, labels: np.ndarray) -> np.ndarray:
        """The classes of a label map, the largest first, as high as it and of one width for all maps; RGB."""
        names, height = [str(name) for name in self.dataset_meta["classes"]], labels.shape[0]
        font = _font(int(np.clip(height / 32, 10, 20)))
        row = round(1.5 * font.size)
        width = max(_size(font, f"{name} 100.0 %")[0] for name in names) + 2 * row
        picture = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(picture)
        counts = np.bincount(labels[labels < len(names)].ravel(), minlength=len(names))
        present = [label for label in np.argsort(-counts, kind="stable") if counts[label]]
        rows = max(1, height // row)
        shown = present if len(present) <= rows else present[: rows - 1]
        for index, label in enumerate(shown):
            top = index * row
            draw.rectangle(
                (row // 4, top + row // 4, row, top + row - row // 8), tuple(self.dataset_meta["palette"][label])
            )
            text = f"{names[label]} {100 * counts[label] / labels.size:.1f} %"
            draw.text((row * 5 // 4, top + row // 2), text, "black", font, "lm")
        if len(shown) < len(present):
            text = f"and {len(present) - len(shown)} more"
            draw.text((row * 5 // 4, len(shown) * row + row // 2), text, "black", font, "lm")
        return np.array(picture)


class DetPainter(Painter):
    """Boxes, masks and segments of mmdet."""

    @override
    def _make_visualizer(self) -> Any:
        from mmdet.visualization import DetLocalVisualizer

        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = {"palette": "random", **self.dataset_meta}  # of no classes, as open vocabularies
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
        if "pred_score" in sample and "pred_label" not in sample:  # of test-time augmentation
            sample = sample.clone()
            sample.set_pred_label(sample.pred_score.argmax())
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


def _label_map(data: Any) -> np.ndarray:
    """The ``(H, W)`` labels of mmseg's ``PixelData``; others than classes are 255 or more."""
    labels = data.data[0].cpu().numpy().astype(np.int64)
    return np.where(labels < 0, 255, labels)


@cache
def _font(size: int) -> Any:
    """The font of matplotlib, which has the letters of most alphabets."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _size(font: Any, text: str) -> tuple[int, int]:
    left, top, right, bottom = font.getbbox(text)
    return int(right - left) + 1, int(bottom - top) + 1


def _place(mask: np.ndarray, width: int, height: int) -> tuple[int, int] | None:
    """The pixel ``(x, y)`` of a region that is furthest from its border, if a text has room there."""
    inside = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    if 2 * distance[y, x] < height or 4 * distance[y, x] < width:
        return None
    rows, columns = mask.shape
    if width > columns or height > rows:
        return None
    half_width, half_height = width // 2 + 1, height // 2 + 1
    return (
        min(max(int(x), half_width), columns - half_width),
        min(max(int(y), half_height), rows - half_height),
    )
