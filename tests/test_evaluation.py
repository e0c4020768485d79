"""The figures that the toolboxes report through our configs equal those of computations that are none of theirs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"


class Collect(Hook):
    """Keeps what the model gives the evaluator."""

    def __init__(self):
        self.samples = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.samples += outputs


def evaluate(config: Config, work_dir: Path, predict=None):
    """Metrics and predictions of a test run; ``predict`` changes a data sample in place of the untrained model."""
    config.work_dir = str(work_dir)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(config)
    collect = Collect()
    runner.register_hook(collect)
    if predict is not None:
        runner.model.predict = lambda inputs, data_samples, **kwargs: [predict(sample) for sample in data_samples]
    return runner.test(), collect.samples


# --- detection ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """COCO's file of five validation photos; one of them has a crowd."""
    content = json.loads((SAMPLE / "annotations/instances_val.json").read_text())
    crowded = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}
    images = sorted(content["images"], key=lambda image: image["id"] not in crowded)[:5]
    ids = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in ids]
    assert crowded <= ids
    path = tmp_path_factory.mktemp("photos") / "instances.json"
    path.write_text(json.dumps(content | dict(images=images, annotations=annotations)))
    return path


def detect(photos: Path, tmp_path: Path, predict=None):
    config = load_config(ROOT / "configs/sample/mask-rcnn_eyetoy-demo_sample.py", data_root=str(SAMPLE))
    config.test_dataloader.dataset.ann_file = config.test_evaluator.ann_file = str(photos)
    config.test_evaluator.outfile_prefix = str(tmp_path / "results")
    config.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=30)
    return evaluate(config, tmp_path, predict)


def coco_results(samples, photos: Path) -> dict[str, list[dict]]:
    """Results in COCO's format."""
    from pycocotools import mask

    ids = [category["id"] for category in json.loads(photos.read_text())["categories"]]
    results: dict[str, list[dict]] = {"bbox": [], "segm": []}
    for sample in samples:
        found = sample.pred_instances
        for (x1, y1, x2, y2), score, label, area in zip(
            found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True
        ):
            one = dict(image_id=sample.img_id, category_id=ids[label], score=score)
            code = mask.encode(np.asfortranarray(area.numpy().astype(np.uint8)))
            results["bbox"].append(dict(one, bbox=[x1, y1, x2 - x1, y2 - y1]))
            results["segm"].append(dict(one, segmentation=dict(code, counts=code["counts"].decode())))
    return results


def average_precision(photos: Path, results: list[dict], kind: str) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(photos)
    evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    return {f"coco/{kind}_{name}": round(float(value), 3) for name, value in zip(names, evaluation.stats)}


def boxes_and_masks(photos: Path, shift: int, mislabelled: float, missed: float):
    """Predictions that are the truth, moved by up to ``shift`` pixels, some with another label, some left out."""
    from pycocotools.coco import COCO

    truth, random = COCO(photos), np.random.default_rng(0)
    labels = {category: label for label, category in enumerate(truth.cats)}

    def predict(sample):
        found = [one for one in truth.imgToAnns[sample.img_id] if not one["iscrowd"] and random.random() >= missed]
        by = random.integers(-shift, shift + 1, (len(found), 2))
        boxes = np.array([one["bbox"] for one in found], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(boxes + np.tile(by, 2).astype(np.float32)),
            masks=torch.from_numpy(
                np.stack([np.roll(truth.annToMask(one), (y, x), (0, 1)) for one, (x, y) in zip(found, by)]) > 0
            ),
            labels=torch.tensor(
                [(labels[one["category_id"]] + (random.random() < mislabelled)) % len(labels) for one in found]
            ),
            scores=torch.from_numpy(random.random(len(found), np.float32)),
        )
        return sample

    return predict


def check_detection(metrics, samples, photos: Path, tmp_path: Path) -> None:
    results = coco_results(samples, photos)
    for kind in ("bbox", "segm"):
        expected = average_precision(photos, results[kind], kind)
        assert {key: metrics[key] for key in expected} == expected
        written = json.loads((tmp_path / f"results.{kind}.json").read_text())  # what a user hands in
        assert len(written) == len(results[kind])
        for one in written if kind == "segm" else ():
            del one["bbox"]  # else pycocotools would take the areas of boxes
        assert average_precision(photos, written, kind) == expected


def test_average_precision_of_a_model(photos, tmp_path):
    pytest.importorskip("mmdet", reason="mmdetection is not installed")
    metrics, samples = detect(photos, tmp_path)
    assert len(samples) == 5 and sum(len(sample.pred_instances) for sample in samples) > 20
    check_detection(metrics, samples, photos, tmp_path)


def test_average_precision_near_the_truth(photos, tmp_path):
    pytest.importorskip("mmdet", reason="mmdetection is not installed")
    metrics, samples = detect(photos, tmp_path, boxes_and_masks(photos, shift=3, mislabelled=0.2, missed=0.1))
    check_detection(metrics, samples, photos, tmp_path)
    for kind in ("bbox", "segm"):
        assert 0.1 < metrics[f"coco/{kind}_mAP"] < metrics[f"coco/{kind}_mAP_50"] < 0.9


def test_average_precision_of_the_truth_is_one(photos, tmp_path):
    pytest.importorskip("mmdet", reason="mmdetection is not installed")
    metrics, _ = detect(photos, tmp_path, boxes_and_masks(photos, shift=0, mislabelled=0.0, missed=0.0))
    assert metrics["coco/bbox_mAP"] == metrics["coco/segm_mAP"] == 1.0


# --- segmentation ---------------------------------------------------------------------------------------------------


def mask_of(sample) -> np.ndarray:
    mask = SAMPLE / "annotations/validation" / f"{Path(sample.img_path).stem}.png"
    return cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)


def labels_near_the_truth(random: np.random.Generator):
    def predict(sample):
        labels = mask_of(sample).astype(np.int64) - 1
        labels[labels == 3] = 5  # a class that is never found
        guessed = (random.random(labels.shape) < 0.3) | (labels < 0)
        labels[guessed] = random.integers(0, 7, guessed.sum())
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        return sample

    return predict


@pytest.mark.parametrize("near_the_truth", [False, True])
def test_mean_iou_and_accuracies_of_pixels(tmp_path, near_the_truth):
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    config = load_config(ROOT / "configs/sample/upernet_eyetoy-demo_sample.py", data_root=str(SAMPLE))
    config.test_dataloader.dataset.indices = 4
    predict = labels_near_the_truth(np.random.default_rng(0)) if near_the_truth else None
    metrics, samples = evaluate(config, tmp_path, predict)

    confusion = np.zeros((7, 7))  # [truth, prediction]
    ignored = 0
    for sample in samples:
        predicted = sample.pred_sem_seg.data[0]
        truth = mask_of(sample)
        assert predicted.shape == truth.shape
        for true, found in zip(truth.ravel().tolist(), predicted.ravel().tolist()):
            if true == 0:
                ignored += 1
            else:
                confusion[true - 1, found] += 1
    assert len(samples) == 4 and ignored > 0
    hits, truths, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    ious = [hits[k] / (truths[k] + found[k] - hits[k]) for k in range(7) if truths[k] + found[k] > 0]
    recalls = [hits[k] / truths[k] for k in range(7) if truths[k] > 0]
    expected = dict(aAcc=hits.sum() / truths.sum(), mIoU=np.mean(ious), mAcc=np.mean(recalls))
    assert metrics == pytest.approx({key: 100 * value for key, value in expected.items()}, abs=0.0051)  # 2 digits
    assert len(set(metrics.values())) == 3
    if near_the_truth:
        assert metrics["mIoU"] > 20


# --- classification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near_the_truth", [False, True])
def test_top_1_and_top_5(tmp_path, near_the_truth):
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    random = np.random.default_rng(0)
    classes = [f"class {chr(97 + i)}" for i in range(12)]
    for name in classes:
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
        for number in range(3):
            image = random.integers(0, 256, (40, 40, 3), dtype=np.uint8) // (1 + number)
            assert cv2.imwrite(str(tmp_path / "test" / name / f"{number}.png"), image)

    def predict(sample):
        scores = torch.from_numpy(random.random(12, np.float32))
        scores[sample.gt_label] += 0.3
        return sample.set_pred_score(scores)

    config = load_config(ROOT / "configs/sample/eyetoy-shallow_caltech101-sample.py", data_root=str(tmp_path))
    metrics, samples = evaluate(config, tmp_path / "work", predict if near_the_truth else None)

    ranks = []
    for sample in samples:
        scores = sample.pred_score.tolist()
        true = classes.index(Path(sample.img_path).parent.name)
        ranks.append(sum(score > scores[true] for score in scores))
    assert len(ranks) == 36
    expected = {f"accuracy/top{k}": 100 * sum(rank < k for rank in ranks) / 36 for k in (1, 5)}
    assert metrics == pytest.approx(expected)
    assert 0 < metrics["accuracy/top1"] < metrics["accuracy/top5"] < 100
