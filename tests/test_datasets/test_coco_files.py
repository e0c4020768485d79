"""Wrong annotations of detection: each kind is told, and counted as mmdet itself drops them; right ones pass."""

import contextlib
import copy
import gzip
import io
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="mmdetection is not installed")

from benchmarks.trust import det
from eyetoy_mm.datasets.coco_files import check_coco_file, coco_findings
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.detection_checks import detection_findings
from eyetoy_mm.errors import UserError


def findings(folder: Path, content: dict) -> list:
    """What is found in ``content``; the photos are there."""
    return det.told(det.write(folder, content))


# --- what is refused ------------------------------------------------------------------------------------------------

SAID = {
    "boxes as x1 y1 x2 y2": r"\(train, val\) has boxes written as x1 y1 x2 y2.* 18 of 24 reach far beyond .* \[x1,",
    "boxes as y1 x1 y2 x2": "written as y1 x1 y2 x2",
    "boxes as centre and size": "written as the centre's x and y.* width / 2",
    "boxes as y x height width": "all boxes of 6 of these images fit when width and height change places.* x and y",
    "boxes normalised to 0..1": r"(?s)normalised to 0\.\.1.* Multiply x and width by .*height\s.*24 narrower or lower",
    "corners normalised to 0..1": "normalised.* and seem to be x1 y1 x2 y2",
    "boxes of a larger copy of the images": "(?s)24 of 24 boxes that reach far beyond.*18 outside of their image",
    "boxes in 0..1000": "24 of 24 boxes that reach far beyond their image",
    "most boxes of negative size": r"(?s)has 18 of 24 boxes .* bbox=\[40, 40, -9, -9\].*18 outside of their image",
    "areas of 0": "of which 24 would be dropped in silence: 24 of an area of 0 or less",
    "no area": r"annotations\[0\] has no area; add it \[24: ",
    "a box of null": r"whose bbox is None, not a list of four finite numbers.* \[5: annotation 10, annotation 21",
    "a box with null": r"bbox is \[4, 6, 12, None\]",
    "a box with NaN": r"bbox is \[4, 6, 12, nan\]",
    "boxes of text": r"bbox is \['4', '6', '12', '10'\]",
    "boxes of three numbers": r"bbox is \[4, 6, 12\]",
    "boxes of five numbers": r"bbox is \[4, 6, 12, 10, 0.5\]",
    "boxes as objects": "bbox is {'x': 4",
    "boxes of nothing": r"bbox is \[\], ",
    "every object iscrowd": "iscrowd=1 in 24 of 24 boxes",
    "iscrowd as text": "iscrowd is '0', not 0 or 1",
    "no iscrowd": r'\(val, evaluator\) has no iscrowd in 24 of 24 annotations.* Add "iscrowd": 0',
    "every object ignored": "24 marked ignore",
    "width and height swapped": "has 18 of 24 boxes far beyond .* in an image of 48 x 64.* change places",
    "width and height of 0": "width is 0, not a number of pixels from 1",
    "width as text": "width is '64'",
    "images smaller than min_size": "leaves no image: it has 6.*'min_size': 32",
    "images listed twice": r"lists 6 files as several images each.*\[6: 1.jpg",
    "file names with backslashes": r"'photos\\\\1.jpg' has the backslashes of Windows",
    "file names with a folder too many": "'photos/1.jpg' has a folder, but 1.jpg lies in .*photos itself",
    "file names of another machine": "'/home/me/data/1.jpg' has a folder, but 1.jpg lies in",
    "file names with capitals": "'1.JPG' is '1.jpg' on disk",
    "file names of a download": "is an address; download",
    "file names that are numbers": "file_name is not text but 1;",
    "category ids as text": r"category_id is text \('1'\), but the id of its categories is numbers \(1\)",
    "image ids as text": r"image_id is text \('1'\), but the id of its images is numbers",
    "ids of images now text, now numbers": r"images whose id is now a number, now text \(2, '1'\)",
    "annotation ids of words": "whose id is text .'a-10'., at which the first evaluation fails",
    "annotation ids of null": "annotations whose id is None",
    "image_id of another file": "24 of 24 annotations whose image_id no image has, such as 101",
    "category_id not listed": "category_id 9, which its categories do not list",
    "classes with capitals and blanks": "spelt otherwise: 'cat' is there as 'Cat', 'dog' is there as 'dog '",
    "Roboflow's project named as a class": r"named 'cat' \(ids 0, 1\).* Take category 0, which no annotation uses, out",
    "masks missing": r"(?s)no segmentation in annotation 10 and 5 more.*\(val, evaluator\) has no segmentation in 6",
    "masks of nothing": "no segmentation in annotation 10 and 23 more of 24",
    "polygons of 4 numbers": "(?s)24 without a polygon of 3 points.*first polygon has fewer than 3 points, at which",
    "polygons of 7 numbers": "24 without a polygon of 3 points or more",
    "polygons of nothing": "24 without a polygon of 3 points or more",
    "a polygon as a flat list": "numbers are not in a list of polygons",
    "polygons of pairs": "its points are pairs",
    "polygons normalised to 0..1": "24 of 24 masks elsewhere than their boxes.*normalised to 0..1: multiply",
    "polygons with x and y swapped": "x and y of the polygons have changed places",
    "polygons outside of the image": r"its mask from \(504, 506\) to \(516, 516\)",
    "a polygon with null": r"a coordinate is not a number.*\[4: annotation 10, annotation 23",
    "a polygon that reaches to 1e9": r"a coordinate of 1e\+09",
    "RLE of swapped size": r"RLE of size \[64, 48\], but its image has \[48, 64\]",
    "RLE that does not fill the image": "its counts are for 140 pixels, its size for 48 x 64",
    "RLE of words": "RLE of counts '100 40 2932', neither",
    "RLE without counts": "RLE of counts None",
    "evaluator with other images": r"all.json \(val, evaluator\) has 6 of 12 images that the dataset does not have",
    "validation on images without annotations": "no annotation of the classes: every average precision would be -1",
    "boxes as x1 y1 x2 y2, all small": "24 of 24 masks elsewhere.* The boxes are written as x1 y1 x2 y2: write",
    "a file with a byte order mark": "is not JSON: it begins with a byte order mark; save it as UTF-8",
    "classes in another order in validation": "label 0 is 'cat' in training and 'dog' in val",
    "VOC: names that are no class": r"6 of 6 .* would be dropped in silence: 'Cat' \(3\), 'dog ' \(3\)",
    "VOC: boxes as x y width height": "They seem to be x, y, width, height: write x2 = x1",
    "VOC: boxes normalised to 0..1": "normalised to 0..1",
    "VOC: width and height swapped": "3 of 6 boxes that reach far beyond their image, and fit when",
    "VOC: every object difficult": "difficult=1 in 6 of 6 objects",
    "VOC: XML that ends early": "XML that cannot be read .* Correct 1.xml",
    "VOC: a box without numbers": "xmin='left', no number",
    "VOC: names with their suffix": "names without their suffix",
    "VOC: a list of one class, with marks": "the id alone in each line",
    "panoptic: segments of no category": "category_id 7, which its categories do not list",
    "panoptic: segments of no class": "'sky' .* at which mmdet fails",
    "panoptic: segments that the PNG does not have": "1 .of 1 looked at. PNGs of segments that lack segments",
    "panoptic: things behind stuff": "has 'dog' as a thing .isthing=1., behind stuff",
    "panoptic: PNGs missing": "needs 1 PNGs of segments .of 1. that are not on disk: .*segments/2.png",
    "panoptic: several segments of one id": r"has 1 images with several segments of one id.*\[1: image 1\]",
    "panoptic: boxes elsewhere": r"\(of 1 looked at\) PNGs of segments that have segments elsewhere than .*such as 2",
    "panoptic: no iscrowd": r"has no iscrowd in 1 of 2 segments.*\[1: segment 1\]",
    "joined validation sets that number their images alike": "ids that several of the joined datasets have, such as 1",
    "panoptic: no isthing": r"categories\[0\] has no isthing",
    "panoptic: a file of instances": r"annotations\[0\] has no segments_info",
}  # fmt: skip
WARNED = {
    "some boxes of size 0": "of which 8 would be dropped in silence: 8 outside of their image",
    "CVAT's masks among polygons": "iscrowd=1 in 6 of 24 boxes",
    "RLE without a pixel": "has its box from (4, 6) to (16, 16), and no pixel in its mask",
    "images left out of validation, as of training": "filter_cfg leaves images out of what is scored",
    "every annotation twice": "has 24 of 48 boxes twice",
    "areas of a smaller copy": "24 of 24 areas that cannot be those of their boxes, such as area=0.12 of bbox=[4, 6,",
    "no annotation to train on": "has no box of the classes: a detector learns from it what is background",
    "VOC: no objects": "has no object in the XML files (3 of 3 were looked into)",
    "VOC: images listed twice": "lists 1 images more than once",
    "validation on the images of training": "images of training are evaluated on, 6 of 6 in val",
}


def test_every_case_is_named():
    assert set(SAID) | set(WARNED) == set(det.CASES)


@pytest.mark.parametrize("case", SAID)
def test_wrong_data_are_refused(case, tmp_path):
    with pytest.raises(UserError, match=SAID[case]):
        det.CASES[case](tmp_path / "data")


@pytest.mark.parametrize("case", WARNED)
def test_odd_data_are_told_of(case, tmp_path):
    assert WARNED[case] in det.CASES[case](tmp_path / "data")


# --- what passes ----------------------------------------------------------------------------------------------------


def test_good_data_are_passed_without_a_word(tmp_path):
    assert findings(tmp_path / "data", det.good()) == []
    assert detection_findings(det.voc(tmp_path / "voc"), "train") == []
    config, content = det.panoptic(tmp_path / "panoptic")
    (tmp_path / "panoptic/panoptic.json").write_text(json.dumps(content))
    assert detection_findings(config, "train") == []


def roboflow(content: dict) -> None:
    """Boxes alone, an empty list for masks, the project as category 0 above the others, ids from 0."""
    content["categories"].insert(0, dict(id=0, name="animals", supercategory="none"))
    for category in content["categories"][1:]:
        category["supercategory"] = "animals"
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
        annotation["id"] -= 10
    content["info"] = dict(year="2026")


def cvat(content: dict) -> None:
    for annotation in content["annotations"]:
        annotation["attributes"] = dict(occluded=False, rotation=0.0)
        annotation["area"] = float(annotation["area"])
    content["licenses"] = [dict(id=0, name="", url="")]


def labelme2coco(content: dict) -> None:
    for annotation in content["annotations"]:
        annotation["bbox"] = [float(value) for value in annotation["bbox"]]


def voc2coco(content: dict) -> None:
    """One-based boxes that end one pixel beyond, difficult objects as ignore, categories from 0, no ``info``."""
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation.update(bbox=[x + 1, y + 1, width, height], ignore=0, segmentation=[])
        annotation["category_id"] -= 1
    for category in content["categories"]:
        category.update(id=category["id"] - 1, supercategory="none")


def ids_of_text(content: dict) -> None:
    """pycocotools compares them as it does numbers, if all are text."""
    for image in content["images"]:
        image["id"] = f"photo-{image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"photo-{annotation['image_id']}"


@pytest.mark.parametrize("tool", [roboflow, cvat, labelme2coco, voc2coco, ids_of_text])
def test_files_as_tools_write_them_pass(tool, tmp_path):
    content = det.good()
    tool(content)
    config = det.write(tmp_path / "data", content)
    for split in ("train", "val"):
        steps = config[f"{split}_dataloader"].dataset.pipeline
        steps[1].with_mask = tool not in (roboflow, voc2coco)
    config.val_evaluator.metric = "bbox" if tool in (roboflow, voc2coco) else ["bbox", "segm"]
    check_data(config, "train", "val")
    told = {finding.kind for finding in det.told(config)}
    assert told == ({"annotation id 0"} if tool is roboflow else set())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps(det.good()).encode("utf-16-le"), "it is UTF-16-LE; save it as UTF-8"),
        (gzip.compress(b"{}", mtime=0), "compressed by gzip: unpack it"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'{"error": 404', "Expecting ',' delimiter"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, told):
    path = tmp_path / "objects.json"
    path.write_bytes(content)
    (found,) = coco_findings(path, "train", det.CLASSES, dict(data_root=str(tmp_path)))
    assert f"{path} (train) is not JSON: " in str(found) and told in str(found)


def test_a_word_of_one_box_and_a_stop_at_most(tmp_path):
    """A box in a hundred is a slip of annotation; more than half is another data set than was asked for."""
    content = det.good()
    for count, annotation in enumerate(content["annotations"], 1):
        annotation["area"] = 0
        (tmp_path / str(count)).mkdir()
        path = tmp_path / str(count) / "objects.json"
        path.write_text(json.dumps(content))
        dataset = dict(data_root="s3://elsewhere", test_mode=True)
        (found,) = coco_findings(path, "train", det.CLASSES, dataset)
        assert (found.kind, found.count, found.fatal) == ("boxes dropped", count, count > 12)
    with pytest.raises(UserError, match="24 of an area of 0"):
        check_coco_file(path, "train", det.CLASSES, dataset)


def test_some_images_on_their_side_are_told_of(tmp_path):
    content = det.good()
    content["images"] *= 20
    content["images"] = [dict(image, id=i, file_name=f"{i}.jpg") for i, image in enumerate(content["images"])]
    boxes = [copy.deepcopy(content["annotations"][1]) for _ in content["images"]]
    content["annotations"] = [dict(a, id=i + 1, image_id=i) for i, a in enumerate(boxes)]
    content["images"][7].update(width=det.HEIGHT, height=det.WIDTH)
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(content))
    dataset = dict(data_root="s3://elsewhere", test_mode=True)
    (found,) = [f for f in coco_findings(path, "train", ("cat", "dog"), dataset) if f.kind.startswith("width")]
    assert found.where == ("annotation 8",) and not found.fatal


# --- held against mmdet itself --------------------------------------------------------------------------------------

JUNK = [None, 0, -1, 0.5, float("nan"), "", "1", "x", [], {}, [1], [[1, 2]], True, 1e9, 1e30, 10**30]


def spoilt(draw: random.Random) -> dict:
    """The good content with a value or two replaced, taken out, or multiplied."""
    content = det.good()
    for _ in range(draw.choice((1, 1, 2))):
        entry, places = content, []
        while isinstance(entry, dict | list) and len(entry):
            key = draw.choice(list(entry) if isinstance(entry, dict) else range(len(entry)))
            places.append((entry, key))
            entry = entry[key]
        entry, key = draw.choice(places[1:] or places)
        value = entry[key]
        if draw.random() < 0.3:
            del entry[key]
        elif isinstance(value, int) and draw.random() < 0.5:
            entry[key] = value * draw.choice((-1, 0, 3))
        else:
            entry[key] = copy.deepcopy(draw.choice(JUNK))
    return content


def trained_on(config) -> int:
    """How many objects mmdet's own dataset and pipeline leave."""
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
    from mmdet.datasets.transforms.loading import LoadImageFromFile

    settings = {k: v for k, v in config.train_dataloader.dataset.to_dict().items() if k not in ("type", "pipeline")}
    steps = [LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True), PackDetInputs()]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDataset(**settings, pipeline=steps)
    return sum(len(dataset[index]["data_samples"].gt_instances) for index in range(len(dataset)))


def test_whatever_is_in_a_file_it_is_refused_or_counted_as_mmdet_counts(tmp_path):
    draw = random.Random(0)
    config = det.write(tmp_path / "data", det.good())
    passed = dropped_some = 0
    for _ in range(150):
        content = spoilt(draw)
        (tmp_path / "data/objects.json").write_text(json.dumps(content))
        found = detection_findings(config, "train")
        if any(finding.fatal for finding in found):
            continue
        dropped = sum(f.count for f in found if f.kind in ("boxes dropped", "annotations of no image"))
        crowd = sum(bool(annotation.get("iscrowd")) for annotation in content["annotations"])
        assert trained_on(config) == len(content["annotations"]) - dropped - crowd
        passed += 1
        dropped_some += bool(dropped)
    assert passed > 20 and dropped_some > 5


def evaluated(content: dict) -> float:
    """Average precision of masks for the good content's objects as detections, by pycocotools itself."""
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        found = [
            dict(
                image_id=annotation["image_id"],
                category_id=annotation["category_id"],
                score=0.9,
                segmentation=mask.merge(mask.frPyObjects(annotation["segmentation"], det.HEIGHT, det.WIDTH)),
            )
            for annotation in det.good()["annotations"]
        ]
        scores = COCOeval(truth, truth.loadRes(found), "segm")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    return float(scores.stats[0])


def test_the_good_content_scores_full():
    assert evaluated(det.good()) == 1


@pytest.mark.parametrize(
    "case",
    [
        "no iscrowd",
        "annotation ids of words",
        "masks missing",
        "masks of nothing",
        "polygons of 4 numbers",
        "polygons of nothing",
        "a polygon as a flat list",
        "polygons of pairs",
    ],
)
def test_what_is_said_to_end_the_first_evaluation_does(case):
    content = det.good()
    det.CASES[case].args[0](content)
    with pytest.raises(Exception):  # noqa: B017 - pycocotools raises what comes, plain Exception too
        evaluated(content)


def test_annotation_0_counts_as_missed():
    content = det.good()
    content["annotations"][0]["id"] = 0
    assert evaluated(content) < 1


@pytest.mark.parametrize(("change", "left"), [(str, 6), (det.VOC["VOC: names that are no class"], 0)])
def test_names_are_counted_as_mmdet_counts_them(change, left, tmp_path):
    from mmdet.datasets import VOCDataset

    config = det.voc(tmp_path / "voc", change)
    settings = {key: value for key, value in config.train_dataloader.dataset.to_dict().items() if key != "type"}
    dataset = VOCDataset(**settings)
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(3)) == left
    assert sum(f.count for f in detection_findings(config, "train")) == 6 - left
