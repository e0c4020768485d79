"""Annotations of the sample under other classes, and panoptic ones, as COCO's own tools and mmdet read them."""

import json
from pathlib import Path

import mmcv
import numpy as np
import pytest
from pycocotools.coco import COCO

from eyetoy_mm.engine.sample_annotations import write_instances, write_panoptic

SAMPLE = Path(__file__).resolve().parents[2] / "data/sample/annotations/instances_val.json"
SQUARE, CROWD, TRIANGLE = 11, 12, 13  # ids of the annotations below


@pytest.fixture
def instances(tmp_path):
    """A photo of 8 x 6 with a square of 16 pixels, a strip of 2 upon it, and a crowd that has its last column."""

    def annotation(number, category, box, crowd=0):
        x, y, w, h = box
        if crowd:  # run lengths down the columns: what is before, and what is in it
            segmentation = dict(size=[6, 8], counts=[6 * x, 6 * w])
        else:
            segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        return dict(
            id=number, image_id=5, category_id=category, bbox=box, area=w * h, iscrowd=crowd, segmentation=segmentation
        )

    content = dict(
        images=[dict(id=5, file_name="photo.jpg", height=6, width=8)],
        categories=[dict(id=3, name="cat"), dict(id=8, name="dog")],
        annotations=[
            annotation(TRIANGLE, 8, [2, 2, 2, 1]),
            annotation(CROWD, 3, [7, 0, 1, 6], crowd=1),
            annotation(SQUARE, 3, [1, 1, 4, 4]),
        ],
    )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_instances_of_the_same_classes_stay_where_they_are(instances, tmp_path):
    assert write_instances(instances, ["cat", "dog"], tmp_path / "no.json") == instances
    assert not (tmp_path / "no.json").exists()


@pytest.mark.parametrize("classes", [["car"], ["car", "bus", "van"], [f"class {i}" for i in range(100)]])
def test_classes_of_another_dataset_take_the_place_of_the_samples_in_turn(classes, tmp_path):
    before, after = COCO(str(SAMPLE)), COCO(str(write_instances(SAMPLE, classes, tmp_path / "new.json")))
    assert [category["name"] for category in after.loadCats(after.getCatIds())] == classes
    order = before.getCatIds()
    for number, annotation in before.anns.items():
        changed = after.anns[number]
        assert (
            after.cats[changed["category_id"]]["name"] == classes[order.index(annotation["category_id"]) % len(classes)]
        )
        assert {**changed, "category_id": None} == {**annotation, "category_id": None}


def test_segments_lie_upon_each_other_by_size_and_crowds_are_unlabelled(instances, tmp_path):
    write_panoptic(instances, "sky", ["cat", "dog", "sky"], tmp_path / "panoptic.json")
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert [(c["name"], c["isthing"]) for c in content["categories"]] == [("cat", 1), ("dog", 1), ("sky", 0)]
    names = {category["id"]: category["name"] for category in content["categories"]}
    (annotation,) = content["annotations"]
    assert annotation["image_id"] == 5

    colors = mmcv.imread(str(tmp_path / "panoptic" / annotation["file_name"]), channel_order="rgb").astype(int)
    ids = colors @ (1, 256, 65536)  # as the format says
    found = {names[s["category_id"]]: (ids == s["id"], s) for s in annotation["segments_info"]}
    expected = np.full((6, 8), "sky", dtype=object)
    expected[1:5, 1:5] = "cat"
    expected[2, 2:4] = "dog"
    expected[:, 7] = None
    for name, (mask, segment) in found.items():
        assert (mask == (expected == name)).all()
        assert segment["area"] == mask.sum() and segment["iscrowd"] == 0
    assert set(found) == {"cat", "dog", "sky"}
    assert (ids[:, 7] == 0).all()
    assert found["cat"][1]["bbox"] == [1, 1, 4, 4] and found["dog"][1]["bbox"] == [2, 2, 2, 1]


def test_mmdet_reads_the_panoptic_annotations_of_the_sample(tmp_path):
    datasets = pytest.importorskip("mmdet.datasets", reason="mmdet is not installed")
    meta = datasets.CocoPanopticDataset.METAINFO
    write_panoptic(SAMPLE, meta["stuff_classes"][0], meta["classes"], tmp_path / "panoptic.json")
    dataset = datasets.CocoPanopticDataset(
        ann_file=str(tmp_path / "panoptic.json"),
        data_prefix=dict(img="", seg=str(tmp_path / "panoptic")),
        test_mode=True,
    )
    coco = COCO(str(SAMPLE))
    assert len(dataset) == len(coco.imgs) > 0
    things = [name for name in meta["thing_classes"] if coco.getAnnIds(catIds=coco.getCatIds([name]), iscrowd=False)]
    labels = {meta["classes"][i["bbox_label"]] for n in range(len(dataset)) for i in dataset[n]["instances"]}
    assert labels == set(things)
