"""What an evaluation says by class, counted apart by plain loops."""

import csv
import math

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")
from mmengine.config import Config
from mmengine.structures import BaseDataElement, PixelData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eyetoy_mm.engine.evaluation_report import (
    BoxReport,
    ClassReport,
    PixelReport,
    check_can_report,
    class_table,
    exact_metrics,
    in_numbers,
    passing_comparisons,
    recorded_comparisons,
    write_report,
)
from eyetoy_mm.errors import UserError


def classified(truth: int, *scores: float) -> BaseDataElement:
    return BaseDataElement(gt_label=torch.tensor([truth]), pred_score=torch.tensor(scores))


def test_classes_of_images(tmp_path):
    report = ClassReport(("a", "b", "c"))
    for sample in (classified(0, 0.8, 0.1, 0.1), classified(0, 0.3, 0.6, 0.1), classified(1, 0.0, 0.9, 0.1)):
        report.add(sample)
    assert report.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert report.exact()["top1"] == pytest.approx(200 / 3)
    row = report.per_class()["a"]
    assert (row["precision"], row["recall"], row["count"]) == (1, 0.5, 2) and row["F1"] == pytest.approx(2 / 3)
    # confidences 0.8 (right), 0.6 (wrong) and 0.9 (right), each in a bin of its own
    assert report.calibration.error == pytest.approx((0.2 + 0.6 + 0.1) / 3)
    content = in_numbers(report, {"accuracy/top1": 66.67})
    assert content["metrics"] == {"accuracy/top1": pytest.approx(200 / 3)} and content["images"] == 3
    assert content["per_class"]["c"]["recall"] is None and content["calibration"]["predictions"] == 3
    names = [path.name for path in write_report(report, tmp_path / "new")]
    assert names == ["per_class.csv", "confusion_matrix.csv", "confusion_matrix.png", "reliability.png"]
    with open(tmp_path / "new/confusion_matrix.csv") as file:
        assert list(csv.reader(file))[1] == ["a", "1", "1", "0"]
    assert "| a | 100.00 | 50.00 | 66.67 | 50.00 | 2 |" in class_table(report)
    with pytest.raises(UserError, match="--report is for classifiers of one class for each image"):
        report.add(BaseDataElement(gt_label=torch.tensor([0, 1]), pred_score=torch.tensor([1.0, 0.0, 0.0])))


def test_classes_of_pixels():
    draw = np.random.default_rng(0)
    truth, logits = draw.integers(0, 4, (8, 9)), draw.normal(size=(3, 8, 9))
    truth[truth == 3] = 255
    predicted = logits.argmax(0)
    report = PixelReport(("a", "b", "c"))
    for rows in (slice(0, 5), slice(5, 8)):
        report.add(
            BaseDataElement(
                gt_sem_seg=PixelData(data=torch.from_numpy(truth[None, rows])),
                pred_sem_seg=PixelData(data=torch.from_numpy(predicted[None, rows])),
                seg_logits=PixelData(data=torch.from_numpy(logits[:, rows])),
            )
        )
    ious = []
    for label in range(3):
        there, said = truth == label, (predicted == label) & (truth != 255)
        ious.append((there & said).sum() / (there | said).sum())
    assert report.exact()["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert [row["IoU"] for row in report.per_class().values()] == pytest.approx(ious)
    assert report.exact()["aAcc"] == pytest.approx(100 * (predicted == truth)[truth != 255].mean())
    known = truth != 255  # fewer than are drawn of an image: all are counted
    assert report.calibration.counts[0].sum() == known.sum()
    confidence = torch.from_numpy(logits).softmax(0).amax(0).numpy()[known]
    assert report.calibration.counts[1].sum() == pytest.approx(confidence.sum())


def compared(truth: list, found: list) -> list[COCOeval]:
    """What COCO's code keeps; boxes as (class, x, y, w, h[, score])."""
    annotations = [
        dict(id=index, image_id=1, category_id=one[0], bbox=one[1:5], area=one[3] * one[4], iscrowd=0)
        for index, one in enumerate(truth, 1)
    ]
    coco = COCO()
    categories = [dict(id=number, name=str(number)) for number in (7, 9)]
    coco.dataset = dict(images=[dict(id=1, width=99, height=99)], annotations=annotations, categories=categories)
    coco.createIndex()
    results = [dict(image_id=1, category_id=one[0], bbox=one[1:5], score=one[5]) for one in found]
    with recorded_comparisons() as kept:
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        with passing_comparisons():  # of a rehearsal, whose images are not all
            evaluation.evaluate()
            evaluation.accumulate()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert "recorded" not in COCOeval.accumulate.__qualname__  # as it was
    return kept


def test_boxes():
    truth = [[7, 0, 0, 10, 10], [7, 30, 0, 10, 10], [9, 60, 0, 10, 10]]
    found = [
        [7, 0, 0, 10, 10, 0.9], [9, 30, 0, 10, 10, 0.8], [7, 30, 1, 10, 9, 0.7], [7, 80, 80, 5, 5, 0.6],
        [9, 60, 0, 10, 10, 0.1],
    ]  # fmt: skip
    report = BoxReport(("a", "b"))
    (evaluation,) = compared(truth, found)
    report.take([evaluation])
    # the second was taken for a b, which the right one came too late for; one is of nothing; the third below 0.3
    assert report.confusion.tolist() == [[1, 1, 0], [0, 0, 1], [2, 0, 0]]
    assert report.exact()["bbox_mAP"] == evaluation.stats[0] and report.exact()["bbox_mAP_75"] == evaluation.stats[2]
    rows = report.per_class()
    assert np.mean([rows["a"]["bbox_AP"], rows["b"]["bbox_AP"]]) == pytest.approx(evaluation.stats[0])
    assert rows["a"]["count"] == 2 and in_numbers(report, {"coco/bbox_mAP": round(evaluation.stats[0], 3)})
    with pytest.raises(UserError, match="no box was compared by COCO's metric"):
        report.take([])


def test_metrics_that_are_counted_otherwise_stay_as_they_are():
    exact = {"mIoU": 45.6789, "aAcc": 50.0}
    assert exact_metrics({"x/mIoU": 45.68, "aAcc": 60.0, "other": 1}, exact) == {
        "x/mIoU": 45.6789,
        "aAcc": 60.0,
        "other": 1.0,
    }
    assert math.isnan(exact_metrics({"mIoU": math.nan}, {"mIoU": math.nan})["mIoU"])


def test_detectors_without_cocos_metric_are_refused_before_any_work():
    config = Config(dict(default_scope="mmdet", test_evaluator=dict(type="VOCMetric")))
    with pytest.raises(UserError, match=r"need COCO's metric \(CocoMetric\) in test_evaluator, and it has VOCMetric"):
        check_can_report(config)
    check_can_report(Config(dict(default_scope="mmseg", test_evaluator=dict(type="IoUMetric"))))
