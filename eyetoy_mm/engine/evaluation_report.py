"""What an evaluation says beside its metrics: by class, as confusions, how sure the model was, and unrounded."""

from __future__ import annotations

import contextlib
import contextvars
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine import dist
from mmengine.config import Config

from eyetoy_mm.engine.calibration import Calibration
from eyetoy_mm.engine.config_parts import evaluators_of
from eyetoy_mm.engine.confusion import SCORE, confused_boxes, confused_labels, iou
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import type_name
from eyetoy_mm.tables import markdown_table

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

_SAMPLED = 1000  # pixels of an image whose confidence is counted
_ROUNDED = 0.0051  # what a metric may differ from its exact value, for mmseg and mmdet round theirs
# Names of mmdet's metrics by their places in COCO's numbers.
_COCO = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_COCO_RECALL = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")

PerClass = dict[str, dict[str, float]]


class Report:
    """Counts of an evaluation; subclasses say what an image adds, and what follows from the counts.

    Args:
        classes: Names of the classes.

    Attributes:
        confusion: How often something of a class (row) was predicted as a class (column); a last row and column, where
            there is one, are of nothing.
        calibration: None where predictions have no probabilities.
        images: How many were counted.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.confusion = np.zeros((len(classes), len(classes)), np.int64)
        self.calibration: Calibration | None = Calibration()
        self.images = 0

    def add(self, sample: Any) -> None:
        """Count an image; ``sample`` has its truth and its prediction."""
        raise NotImplementedError

    def sum_over_processes(self) -> None:
        """Take what all processes have counted, in each of them."""
        if dist.get_world_size() == 1:
            return
        counts = [self.confusion, np.array([self.images])]
        counts += [self.calibration.counts] if self.calibration is not None else []
        for array in counts:
            tensor = torch.from_numpy(array.copy())
            dist.all_reduce(tensor)
            array[...] = tensor.cpu().numpy()
        self.images = int(counts[1][0])

    def exact(self) -> dict[str, float]:
        """Metrics under the toolbox' names, as exact as they are counted."""
        raise NotImplementedError

    def per_class(self) -> PerClass:
        """Numbers of each class."""
        raise NotImplementedError


class ClassReport(Report):
    """One class for each image, as mmpretrain's classifiers have it."""

    def add(self, sample: Any) -> None:  # noqa: D102
        if "gt_label" not in sample or "pred_score" not in sample or len(sample.gt_label) != 1:
            raise UserError("--report is for classifiers of one class for each image, and this one's data have others")
        scores = sample.pred_score.float().cpu().numpy()
        truth, predicted = int(sample.gt_label[0]), int(scores.argmax())
        self.confusion[truth, predicted] += 1
        self.images += 1
        if self.calibration is not None:
            self.calibration.add(scores[[predicted]], np.array([truth == predicted]))

    def exact(self) -> dict[str, float]:  # noqa: D102
        return {"top1": 100 * float(np.trace(self.confusion)) / max(int(self.confusion.sum()), 1)}

    def per_class(self) -> PerClass:  # noqa: D102
        return _of_counts(self.classes, self.confusion)


class PixelReport(Report):
    """One class for each pixel, as mmseg's segmentors have it."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self._draw = np.random.default_rng(0)  # of the pixels whose confidence is counted

    def add(self, sample: Any) -> None:  # noqa: D102
        if "gt_sem_seg" not in sample or "pred_sem_seg" not in sample:
            raise UserError("--report needs ground truth, and the test pipeline loads none: LoadAnnotations is missing")
        truth = sample.gt_sem_seg.data[0].cpu().numpy().ravel().astype(np.int64)
        predicted = sample.pred_sem_seg.data[0].cpu().numpy().ravel().astype(np.int64)
        size = len(self.classes)
        self.confusion += confused_labels(truth, predicted, size)
        self.images += 1
        known = np.flatnonzero((truth >= 0) & (truth < size) & (predicted < size))
        if self.calibration is not None and len(known) and "seg_logits" in sample:
            some = self._draw.choice(known, min(_SAMPLED, len(known)), replace=False)
            confidence = _confidence(sample.seg_logits.data.flatten(1)[:, torch.from_numpy(some)])
            self.calibration.add(confidence, truth[some] == predicted[some])

    def exact(self) -> dict[str, float]:  # noqa: D102
        both, there = np.diag(self.confusion), self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            iou, recall = both / (there + self.confusion.sum(0) - both), both / there
        return {
            "aAcc": 100 * float(both.sum()) / max(int(there.sum()), 1),
            "mIoU": 100 * float(np.nanmean(iou)) if len(iou) else math.nan,
            "mAcc": 100 * float(np.nanmean(recall)) if len(recall) else math.nan,
        }

    def per_class(self) -> PerClass:  # noqa: D102
        return _of_counts(self.classes, self.confusion)


class BoxReport(Report):
    """Objects, as mmdet's detectors have them: from what its COCO metric has compared."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.confusion = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        self.calibration = None  # a box has a score, and no class that it must be of
        self._compared: list[COCOeval] = []

    def add(self, sample: Any) -> None:  # noqa: D102
        self.images += 1

    def take(self, compared: Sequence[COCOeval]) -> None:
        """Take what COCO's code has compared.

        Raises:
            UserError: It has compared nothing.
        """
        self._compared = [one for one in compared if one.params.useCats]
        if not self._compared:
            raise UserError(
                "no box was compared by COCO's metric: nothing was found, or the metric is another. Train longer, or "
                "look at predictions of any score: eyetoy infer CONFIG CHECKPOINT PHOTO --score 0"
            )
        numbers = {number: index for index, number in enumerate(self._compared[0].params.catIds)}
        first = self._compared[0]
        for image in first.params.imgIds:
            truth = [
                one for one in first.cocoGt.imgToAnns[image] if not one.get("iscrowd") and one["category_id"] in numbers
            ]
            found = [one for one in first.cocoDt.imgToAnns[image] if one["score"] >= SCORE]
            found.sort(key=lambda one: -one["score"])
            labels, predicted = (np.array([numbers[one["category_id"]] for one in each]) for each in (truth, found))
            corners = [_corners([one["bbox"] for one in each]) for each in (found, truth)]
            self.confusion += confused_boxes(labels, predicted, iou(*corners), len(self.classes))

    def exact(self) -> dict[str, float]:  # noqa: D102
        values = {}
        for one in self._compared:
            for name, value in zip((*_COCO, *_COCO_RECALL), one.stats):
                values[f"{one.params.iouType}_{name}"] = float(value)
        return values

    def per_class(self) -> PerClass:  # noqa: D102
        table: PerClass = {}
        for one in self._compared:
            precision = one.eval["precision"][..., 0, -1]  # threshold, recall, class; of all sizes, most detections
            of: dict[str, Any] = {"AP": slice(None)}
            for place, threshold in enumerate(one.params.iouThrs):
                of |= {f"AP{round(100 * threshold)}": place} if round(100 * threshold) in (50, 75) else {}
            for index, name in enumerate(self.classes):
                row = {f"{one.params.iouType}_{key}": _mean(precision[at, :, index]) for key, at in of.items()}
                table.setdefault(name, {}).update(row)
        for name, count in zip(self.classes, self.confusion.sum(1)):
            table[name]["count"] = int(count)
        return table


_REPORTS: dict[str, type[Report]] = {"mmpretrain": ClassReport, "mmseg": PixelReport, "mmdet": BoxReport}


def check_can_report(config: Config) -> None:
    """Check, before anything is predicted, that what is compared can be counted.

    Raises:
        UserError: A detector is evaluated otherwise than by COCO's metric.
    """
    metrics = [type_name(metric) for _, metric in evaluators_of(config, ("test",))]
    if config.get("default_scope") == "mmdet" and not any(
        "Coco" in name and "Panoptic" not in name for name in metrics
    ):
        raise UserError(
            "--report and --json of a detector need COCO's metric (CocoMetric) in test_evaluator, and it has "
            f"{', '.join(metrics) or 'none'}"
        )


def make_report(scope: str, classes: Sequence[str]) -> Report:
    """The report of a toolbox.

    Raises:
        UserError: The data set has no classes.
    """
    if not classes:
        raise UserError("--report and --json need a data set that names its classes (metainfo)")
    return _REPORTS[scope](classes)


_passing = contextvars.ContextVar("passing", default=False)


@contextlib.contextmanager
def passing_comparisons() -> Iterator[None]:
    """Within it COCO's code compares for itself alone: a rehearsal's numbers are of some images."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


@contextlib.contextmanager
def recorded_comparisons() -> Iterator[list[COCOeval]]:
    """Keep what COCO's code compares meanwhile: mmdet gives its numbers rounded, and forgets the rest."""
    compared: list[COCOeval] = []
    if find_spec("pycocotools") is None:  # it comes with mmdet
        yield compared
        return
    from pycocotools.cocoeval import COCOeval

    accumulate = COCOeval.accumulate

    def recorded(self: COCOeval, *args: Any, **kwargs: Any) -> None:
        accumulate(self, *args, **kwargs)
        if not _passing.get():
            compared.append(self)

    COCOeval.accumulate = recorded
    try:
        yield compared
    finally:
        COCOeval.accumulate = accumulate


# --- Writing ------------------------------------------------------------------------------------------------------


def exact_metrics(reported: Mapping[str, Any], exact: Mapping[str, float]) -> dict[str, Any]:
    """The toolbox' metrics, unrounded where they are counted here; one that is another number stays as it is."""
    metrics = {}
    for key, value in reported.items():
        better = exact.get(key.rpartition("/")[2], math.nan)
        is_number = isinstance(value, Real)
        metrics[key] = better if is_number and abs(better - float(value)) <= _ROUNDED else value
    return metrics


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``per_class.csv``, ``confusion_matrix.csv`` and ``.png``, and ``reliability.png`` where there is one."""
    from eyetoy_mm.engine.evaluation_pictures import draw_confusion  # matplotlib takes a third of a second to import

    folder.mkdir(parents=True, exist_ok=True)
    table = report.per_class()
    columns = list(next(iter(table.values())))
    _write_csv(folder / "per_class.csv", ["class", *columns], [[name, *row.values()] for name, row in table.items()])
    names = [*report.classes, *["(nothing)"] * (len(report.confusion) - len(report.classes))]
    rows = [[name, *row] for name, row in zip(names, report.confusion.tolist())]
    _write_csv(folder / "confusion_matrix.csv", ["truth / predicted", *names], rows)
    picture = draw_confusion(report.confusion, report.classes, "what each class was taken for")
    picture.savefig(folder / "confusion_matrix.png", dpi=100)
    written = [folder / name for name in ("per_class.csv", "confusion_matrix.csv", "confusion_matrix.png")]
    if report.calibration is not None:
        title = f"expected calibration error {100 * report.calibration.error:.2f} %"
        report.calibration.draw(title).savefig(folder / "reliability.png", dpi=100)
        written.append(folder / "reliability.png")
    return written


def in_numbers(report: Report, reported: Mapping[str, float]) -> dict[str, Any]:
    """Everything that was counted, for JSON; what does not exist is None.

    Args:
        report: The counts.
        reported: The toolbox' own metrics.
    """
    metrics = exact_metrics(reported, report.exact())
    whole = dict(images=report.images, metrics=metrics, reported=dict(reported), per_class=report.per_class())
    if report.calibration is not None:
        whole["calibration"] = report.calibration.as_json()
    return _without_nan(whole)


def class_table(report: Report) -> str:
    """Numbers of each class as a markdown table."""
    table = report.per_class()
    columns = list(next(iter(table.values())))
    rows = [[name, *(_cell(row[column]) for column in columns)] for name, row in table.items()]
    return markdown_table(["class", *columns], rows)


def _of_counts(classes: Sequence[str], confusion: np.ndarray) -> PerClass:
    """Precision, recall, F1 and IoU of each class, from 0 to 1, and how much of it there is."""
    both, there, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "precision": both / said,
            "recall": both / there,
            "F1": 2 * both / (said + there),
            "IoU": both / (said + there - both),
        }
    table: PerClass = {name: {} for name in classes}
    for index, name in enumerate(classes):
        table[name] = {key: float(values[index]) for key, values in columns.items()}
        table[name]["count"] = int(there[index])
    return table


def _confidence(logits: torch.Tensor) -> np.ndarray:
    """The probability of what is predicted, by mmseg's scores ``(C, N)``: logits, or of one class probabilities."""
    if logits.shape[0] == 1:
        return torch.maximum(logits[0], 1 - logits[0]).float().cpu().numpy()
    return logits.float().softmax(0).amax(0).cpu().numpy()


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """COCO's boxes as corners ``(N, 4)``."""
    corners = np.array(boxes, float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _mean(precision: np.ndarray) -> float:
    """COCO's mean, which leaves out what does not exist (-1)."""
    there = precision[precision > -1]
    return float(there.mean()) if there.size else math.nan


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _without_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    if isinstance(node, np.ndarray):
        return _without_nan(node.tolist())
    if isinstance(node, Real) and not isinstance(node, bool):
        return int(node) if isinstance(node, Integral) else float(node) if math.isfinite(node) else None
    return node


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{100 * value:.2f}" if math.isfinite(value) else ""
