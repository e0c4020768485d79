"""Predictions in one form: masks in parts of an image, run lengths, which of them count."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from eyetoy_mm.engine import prediction_files
from eyetoy_mm.engine.colors import class_colors, distinct_colors
from eyetoy_mm.engine.prediction_files import PredictionFiles, Wanted, joined_polygon, write_tiff
from eyetoy_mm.engine.predictions import (
    Choice,
    Instances,
    Mask,
    Prediction,
    class_numbers,
    joined,
    mask_of,
    prediction_of,
)
from eyetoy_mm.errors import UserError

MASKS = {
    "blob": lambda: np.random.default_rng(0).random((13, 9)) > 0.5,
    "whole": lambda: np.ones((13, 9), bool),
    "nothing": lambda: np.zeros((13, 9), bool),
    "columns": lambda: np.arange(9)[None].repeat(13, 0) % 3 == 1,  # runs that go on in the next column
    "corner": lambda: np.add.outer(np.arange(13), np.arange(9)) >= 19,
}


@pytest.mark.parametrize("name", MASKS)
def test_run_lengths_are_cocos(name):
    whole = MASKS[name]()
    expected = coco_masks.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert mask_of(whole).rle(whole.shape) == {"size": [13, 9], "counts": expected["counts"].decode()}
    assert mask_of(whole).area() == whole.sum()


def test_run_lengths_of_a_part_of_a_large_image():
    """Of 400 million pixels, of which none is made."""
    rle = Mask(np.ones((3, 2), bool), x=19_998, y=19_997).rle((20_000, 20_000))
    assert coco_masks.area(rle) == 6
    assert coco_masks.toBbox(rle).tolist() == [19_998, 19_997, 2, 3]


def boxes(*corners, scores=None, labels=None, masks=None) -> Instances:
    count = len(corners)
    return Instances(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * count, np.float32),
        np.array(labels or [0] * count),
        masks,
    )


def test_instances_are_chosen_moved_and_joined():
    first = boxes((0, 0, 4, 4), (1, 1, 2, 2), labels=[1, 2], masks=[Mask(np.ones((4, 4), bool), 0, 0)] * 2)
    both = joined([first[np.array([False, True])], first[np.array([0])].moved(10, 20)])
    assert both.labels.tolist() == [2, 1] and both.boxes[1].tolist() == [10, 20, 14, 24]
    assert (both.masks[1].x, both.masks[1].y) == (10, 20)


def test_what_counts_of_each_kind_of_prediction():
    choice = Choice(("a", "b", "c"), [0, 2], score=0.5)
    found = InstanceData(
        bboxes=torch.zeros(4, 4), scores=torch.tensor([0.9, 0.9, 0.4, 0.5]), labels=torch.tensor([0, 1, 2, 2])
    )
    sample = choice.of(BaseDataElement(pred_instances=found))
    assert sample.pred_instances.labels.tolist() == [0, 2]
    pixels = choice.of(BaseDataElement(pred_sem_seg=PixelData(data=torch.tensor([[[0, 1, 2]]]))))
    assert pixels.pred_sem_seg.data.tolist() == [[[0, 255, 2]]]
    segments = BaseDataElement(pred_panoptic_seg=PixelData(sem_seg=torch.tensor([[[1000, 2001, 3002, 3]]])))
    found = prediction_of(choice.of(segments), (1, 4), 3).instances
    assert found.labels.tolist() == [0, 2] and found.boxes.tolist() == [[0, 0, 1, 1], [2, 0, 3, 1]]
    with pytest.raises(UserError, match="this model predicts pred_text: only classes"):
        prediction_of(BaseDataElement(pred_text="a dog"), (1, 1), 3)


def test_classes_by_name_and_by_number():
    assert class_numbers(["b", "0"], ("a", "b")) == [1, 0]
    with pytest.raises(UserError, match=r"--classes dog: the model has no such class; it has a, b \(0 to 1\)"):
        class_numbers(["dog"], ("a", "b"))


def write(folder, prediction, classes=("cat", "a b"), **wanted):
    files = PredictionFiles(folder, classes, Wanted(json=True, **wanted))
    files.add("photos/7.jpg", folder.relative_to(folder) / "7", prediction, np.zeros((10, 20, 3), np.uint8))
    return json.loads(files.close().read_text())


def test_objects_as_files_that_others_read(tmp_path):
    triangle = np.tril(np.ones((6, 6), bool))
    found = boxes(
        (2, 3, 8, 9), (0, 0, 4, 2), labels=[1, 0], masks=[Mask(triangle, 2, 3), Mask(np.ones((2, 4), bool), 0, 0)]
    )
    content = write(tmp_path, Prediction((10, 20), instances=found), masks=True, txt=True, crops=True)
    assert content["images"] == [dict(id=7, file_name="photos/7.jpg", width=20, height=10, mask="masks/7.png")]
    (whole := np.zeros((10, 20), np.uint8))[3:9, 2:8] = triangle
    truth = COCO()
    truth.dataset = dict(content, annotations=[])
    truth.createIndex()
    loaded = truth.loadRes(content["annotations"])  # as an evaluation would
    assert (loaded.annToMask(loaded.anns[1]) == whole).all() and loaded.anns[1]["bbox"] == [2, 3, 6, 6]
    assert [loaded.cats[one["category_id"]]["name"] for one in loaded.anns.values()] == ["a b", "cat"]
    numbers = cv2.imread(str(tmp_path / "masks/7.png"), cv2.IMREAD_UNCHANGED)
    assert numbers.dtype == np.uint16 and ((numbers == 1) == (whole > 0)).all() and (numbers == 2).sum() == 8
    first, second = (tmp_path / "labels/7.txt").read_text().splitlines()
    assert (
        first.startswith("1 0.1")
        and second == "0 0.000000 0.000000 0.000000 0.100000 0.150000 0.100000 0.150000 0.000000"
    )
    assert cv2.imread(str(tmp_path / "crops/a_b/7_0.png")).shape == (6, 6, 3)


def test_boxes_without_masks_as_yolo_has_them(tmp_path):
    write(tmp_path, Prediction((10, 20), instances=boxes((2, 3, 8, 9))), txt=True)
    assert (tmp_path / "labels/7.txt").read_text() == "0 0.250000 0.600000 0.300000 0.600000\n"


def test_label_maps_and_scores_as_files(tmp_path):
    labels = np.array([[0, 0, 1, 255]])
    content = write(tmp_path, Prediction((1, 4), labels=labels))
    first, second = content["images"][0]["segments"]
    assert (first["share"], second["area"]) == (0.5, 1) and first["category_id"] == 1
    assert coco_masks.decode(first["segmentation"]).tolist() == [[1, 1, 0, 0]]
    content = write(tmp_path, Prediction((1, 4), labels=labels), masks=True)
    assert "segmentation" not in content["images"][0]["segments"][0]  # the file has it
    assert cv2.imread(str(tmp_path / "masks/7.png"), cv2.IMREAD_UNCHANGED).tolist() == labels.tolist()
    content = write(tmp_path, Prediction((1, 4), scores=np.array([0.25, 0.75])))
    assert content["images"][0]["category_id"] == 2 and content["images"][0]["scores"] == [0.25, 0.75]


def test_cocos_own_ids_where_the_classes_are_cocos(tmp_path):
    content = write(tmp_path, Prediction((1, 4), scores=np.array([0.25, 0.75])), classes=("person", "toothbrush"))
    assert [category["id"] for category in content["categories"]] == [1, 90]


def test_one_polygon_around_all_parts_of_an_object():
    whole = np.zeros((20, 30), bool)
    whole[2:8, 3:9] = whole[10:15, 20:28] = True
    polygon = joined_polygon(mask_of(whole))
    filled = cv2.fillPoly(np.zeros(whole.shape, np.uint8), [polygon.astype(np.int32)], 1) > 0
    assert (filled & whole).sum() == whole.sum()
    assert (filled & ~whole).sum() < 30  # the line between them
    assert joined_polygon(mask_of(np.zeros((2, 2), bool))) is None


@pytest.mark.parametrize(
    ("wanted", "scope", "message"),
    [
        (dict(crops=True), "mmseg", "--save-crops cuts out detected objects"),
        (dict(txt=True), "mmpretrain", "--save-txt writes boxes and polygons, which a classifier has not"),
        (dict(masks=True), "mmdet", "--save-masks needs a model that predicts masks"),
    ],
)
def test_files_that_a_model_has_nothing_for(wanted, scope, message):
    with pytest.raises(UserError, match=message):
        Wanted(**wanted).check(scope, has_masks=False)


def test_a_label_map_in_tiles(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    labels = np.random.default_rng(0).integers(0, 9, (700, 530), dtype=np.uint8)
    write_tiff(tmp_path / "labels.tif", labels)
    assert (tifffile.imread(tmp_path / "labels.tif") == labels).all()


@pytest.mark.parametrize("kind", ["labels", "objects"])
def test_masks_that_are_too_much_for_a_png(kind, tmp_path, monkeypatch):
    """A large image, predicted as a whole or not; numbers of more than 16 bits."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    if kind == "labels":
        monkeypatch.setattr(prediction_files, "_LARGE", 3)
        prediction, expected = Prediction((1, 4), labels=np.array([[0, 0, 1, 255]])), [[0, 0, 1, 255]]
    else:
        pixel, count = np.ones((1, 1), bool), 65_537
        found = Instances(
            np.zeros((count, 4), np.float32), np.ones(count), np.zeros(count, int), [Mask(pixel, 0, 0)] * (count - 1)
        )
        found.masks.append(Mask(pixel, 3, 0))
        prediction, expected = Prediction((1, 4), instances=found), [[1, 0, 0, 65_537]]
    PredictionFiles(tmp_path, ("cat", "dog"), Wanted(masks=True)).add("7.tif", Path("7"), prediction)
    pixels = tifffile.imread(tmp_path / "masks/7.tif")
    assert pixels.tolist() == expected
    assert pixels.dtype == (np.uint8 if kind == "labels" else np.uint32)


@pytest.mark.parametrize(("count", "apart"), [(2, 100), (20, 40), (150, 12), (1203, 3)])
def test_colours_keep_apart(count, apart):
    colors = distinct_colors(count)
    lab = cv2.cvtColor(np.array([colors], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(count)
    assert distances.min() > apart
    assert colors == distinct_colors(count + 5)[:count]


def test_colours_of_the_data_set_are_kept_where_they_tell_all_classes_apart():
    own = [(1, 2, 3), (4, 5, 6)]
    assert class_colors(dict(classes=("a", "b"), palette=own)) == own
    for useless in (None, "random", own[:1], [own[0]] * 2, [(1, 2), (3, 4)], [own[0], (0, 0, 256)], [own[0], None]):
        assert class_colors(dict(classes=("a", "b"), palette=useless)) == distinct_colors(2)
