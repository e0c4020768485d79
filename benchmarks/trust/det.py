"""Detection data that are wrong: each case makes them in an empty folder and checks them as ``train.py`` does.

Whatever a case raises is what a user reads; a case that raises nothing returns what is logged.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.detection_checks import detection_findings

WIDTH, HEIGHT = 64, 48
CLASSES = ("cat", "dog")
Content = dict[str, list[dict[str, Any]]]


def good() -> Content:
    """Six photos, wider than high, with four objects each that have boxes, polygons and areas."""
    images = [dict(id=i, file_name=f"{i}.jpg", width=WIDTH, height=HEIGHT) for i in range(1, 7)]
    boxes = [[4, 6, 12, 10], [30, 20, 30, 26], [34, 5, 20, 12], [50, 30, 12, 16]]
    annotations = [
        dict(
            id=10 * image["id"] + number,
            image_id=image["id"],
            category_id=1 + number % 2,
            bbox=[x, y, width, height],
            area=width * height,
            iscrowd=0,
            segmentation=[[x, y, x + width, y, x + width, y + height, x, y + height]],
        )
        for image in images
        for number, (x, y, width, height) in enumerate(boxes)
    ]
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def write(folder: Path, content: Any) -> Config:
    """Write photos and annotations; the config that trains and evaluates boxes and masks on them."""
    (folder / "photos").mkdir(parents=True)
    for number in range(1, 7):
        cv2.imwrite(str(folder / "photos" / f"{number}.jpg"), np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8))
    path = folder / "objects.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        ann_file=path.name,
        data_prefix=dict(img="photos"),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
    )
    loader = dict(dataset=dataset)
    tested = dict(dataset=dict(copy.deepcopy(dataset), test_mode=True))
    metric = dict(type="CocoMetric", ann_file=str(path), metric=["bbox", "segm"])
    return Config(dict(default_scope="mmdet", train_dataloader=loader, val_dataloader=tested, val_evaluator=metric))


def annotations(change: Callable[[dict], Any], some: int = 1) -> Callable[[Content], None]:
    """Change every one of them, or one in so many."""

    def edit(content: Content) -> None:
        for annotation in content["annotations"][::some]:
            annotation |= change(annotation)

    return edit


def images(change: Callable[[dict], Any], some: int = 1) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        for image in content["images"][::some]:
            image |= change(image)

    return edit


def categories(*names: str) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        for category, name in zip(content["categories"], names):
            category["name"] = name

    return edit


def without(key: str, field: str, some: int = 1) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        for entry in content[key][::some]:
            del entry[field]

    return edit


def box(change: Callable[..., Any], some: int = 1) -> Callable[[Content], None]:
    return annotations(lambda a: dict(bbox=change(*a["bbox"])), some)


def masks(value: Any, some: int = 1) -> Callable[[Content], None]:
    return annotations(lambda _: dict(segmentation=value), some)


def polygons(change: Callable[[list], list], some: int = 1) -> Callable[[Content], None]:
    return annotations(lambda a: dict(segmentation=[change(points) for points in a["segmentation"]]), some)


def roboflow(content: Content) -> None:
    """The project is a category above the others; here it has a class's name."""
    for category in content["categories"]:
        category["supercategory"] = "cat"
    content["categories"].insert(0, dict(id=0, name="cat", supercategory="none"))


def listed_twice(content: Content) -> None:
    content["images"] += [dict(image, id=image["id"] + 100) for image in content["images"]]


def merged_twice(content: Content) -> None:
    content["annotations"] += [dict(annotation, id=annotation["id"] + 1000) for annotation in content["annotations"]]


def one_crowd_run(size: list[int], counts: Any) -> dict:
    return dict(size=size, counts=counts)


_EDITS: dict[str, Callable[[Content], None]] = {
    # boxes
    "boxes as x1 y1 x2 y2": box(lambda x, y, w, h: [x, y, x + w, y + h]),
    "boxes as y1 x1 y2 x2": box(lambda x, y, w, h: [y, x, y + h, x + w]),
    "boxes as centre and size": box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
    "boxes as y x height width": box(lambda x, y, w, h: [y, x, h, w]),
    "boxes normalised to 0..1": box(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]),
    "corners normalised to 0..1": box(
        lambda x, y, w, h: [x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT]
    ),
    "boxes of a larger copy of the images": box(lambda *xywh: [4 * value for value in xywh]),
    "boxes in 0..1000": box(lambda x, y, w, h: [x * 1000 / WIDTH, y * 1000 / HEIGHT, w * 1000 / WIDTH, h * 20]),
    "some boxes of size 0": box(lambda x, y, w, h: [x, y, 0, h], 3),
    "most boxes of negative size": annotations(lambda a: dict(bbox=[40, 40, -9, -9]) if a["id"] % 10 else {}),
    "areas of 0": annotations(lambda _: dict(area=0)),
    "no area": without("annotations", "area"),
    "a box of null": box(lambda *_: None, 5),
    "a box with null": box(lambda x, y, w, h: [x, y, w, None], 5),
    "a box with NaN": box(lambda x, y, w, h: [x, y, w, math.nan], 5),
    "boxes of text": box(lambda *xywh: [str(value) for value in xywh]),
    "boxes of three numbers": box(lambda x, y, w, h: [x, y, w], 5),
    "boxes of five numbers": box(lambda x, y, w, h: [x, y, w, h, 0.5]),
    "boxes as objects": box(lambda x, y, w, h: dict(x=x, y=y, w=w, h=h)),
    "boxes of nothing": box(lambda *_: []),
    "every object iscrowd": annotations(lambda _: dict(iscrowd=1)),
    "CVAT's masks among polygons": annotations(lambda _: dict(iscrowd=1), 4),
    "iscrowd as text": annotations(lambda _: dict(iscrowd="0")),
    "no iscrowd": without("annotations", "iscrowd"),
    "every object ignored": annotations(lambda _: dict(ignore=1)),
    "every annotation twice": merged_twice,
    # images
    "width and height swapped": images(lambda image: dict(width=HEIGHT, height=WIDTH)),
    "width and height of 0": images(lambda _: dict(width=0, height=0)),
    "width as text": images(lambda _: dict(width="64")),
    "images smaller than min_size": images(lambda _: dict(width=20, height=10)),
    "images listed twice": listed_twice,
    "file names with backslashes": images(lambda image: dict(file_name=f"photos\\{image['file_name']}")),
    "file names with a folder too many": images(lambda image: dict(file_name=f"photos/{image['file_name']}")),
    "file names of another machine": images(lambda image: dict(file_name=f"/home/me/data/{image['file_name']}")),
    "file names with capitals": images(lambda image: dict(file_name=image["file_name"].upper())),
    "file names of a download": images(lambda image: dict(file_name=f"https://example.org/{image['file_name']}")),
    "file names that are numbers": images(lambda image: dict(file_name=image["id"])),
    # ids and classes
    "category ids as text": annotations(lambda a: dict(category_id=str(a["category_id"]))),
    "image ids as text": annotations(lambda a: dict(image_id=str(a["image_id"]))),
    "ids of images now text, now numbers": images(lambda image: dict(id=str(image["id"])), 2),
    "annotation ids of words": annotations(lambda a: dict(id=f"a-{a['id']}")),
    "annotation ids of null": annotations(lambda _: dict(id=None), 5),
    "image_id of another file": annotations(lambda a: dict(image_id=a["image_id"] + 100)),
    "category_id not listed": annotations(lambda _: dict(category_id=9)),
    "classes with capitals and blanks": categories("Cat", "dog "),
    "Roboflow's project named as a class": roboflow,
    # masks
    "masks missing": without("annotations", "segmentation", 4),
    "masks of nothing": masks([]),
    "polygons of 4 numbers": polygons(lambda points: points[:4]),
    "polygons of 7 numbers": polygons(lambda points: points[:7]),
    "polygons of nothing": polygons(lambda _: []),
    "a polygon as a flat list": annotations(lambda a: dict(segmentation=a["segmentation"][0])),
    "polygons of pairs": polygons(lambda points: [points[i : i + 2] for i in range(0, len(points), 2)]),
    "polygons normalised to 0..1": polygons(lambda p: [v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(p)]),
    "polygons with x and y swapped": polygons(lambda p: [p[i ^ 1] for i in range(len(p))]),
    "polygons outside of the image": polygons(lambda points: [value + 500 for value in points]),
    "a polygon with null": polygons(lambda points: [None, *points[1:]], 7),
    "a polygon that reaches to 1e9": polygons(lambda points: [1e9, *points[1:]], 7),
    "RLE of swapped size": masks(one_crowd_run([WIDTH, HEIGHT], [100, 40, WIDTH * HEIGHT - 140])),
    "RLE that does not fill the image": masks(one_crowd_run([HEIGHT, WIDTH], [100, 40])),
    "RLE of words": masks(one_crowd_run([HEIGHT, WIDTH], "100 40 2932")),
    "RLE without a pixel": annotations(
        lambda a: dict(segmentation=dict(size=[HEIGHT, WIDTH], counts=[HEIGHT * WIDTH])), 4
    ),
    "RLE without counts": masks(dict(size=[HEIGHT, WIDTH])),
}  # fmt: skip


def check(edit: Callable[[Content], None], folder: Path) -> str:
    """Write the good content as ``edit`` leaves it, and check it; return what is said where nothing is refused."""
    content = good()
    edit(content)
    return checked(write(folder, content))


def told(config: Config) -> list[Finding]:
    """What is wrong with the annotations, but for that the cases evaluate on the photos that they train on."""
    return [each for each in detection_findings(config, "train", "val") if each.kind != "images of training"]


def checked(config: Config) -> str:
    check_data(config, "train", "val")
    return "\n".join(map(str, told(config)))


def no_boxes(folder: Path) -> str:
    config = write(folder, good())
    (folder / "empty.json").write_text(json.dumps(good() | dict(annotations=[])), encoding="utf-8")
    config.train_dataloader.dataset.update(ann_file="empty.json", filter_cfg=None)
    return checked(config)


def the_same_images(folder: Path) -> str:
    return "\n".join(map(str, detection_findings(write(folder, good()), "train", "val")))


def filtered_evaluation(folder: Path) -> str:
    """The data set of validation was copied from that of training."""
    config = write(folder, good())
    config.val_dataloader.dataset.test_mode = False
    return checked(config)


def other_evaluation(folder: Path) -> str:
    """The evaluator scores against a file of other images than the dataset's."""
    config = write(folder, good())
    content = good()
    content["images"] += [dict(image, id=image["id"] + 100) for image in content["images"]]
    (folder / "all.json").write_text(json.dumps(content), encoding="utf-8")
    config.val_evaluator.ann_file = str(folder / "all.json")
    return checked(config)


def joined_evaluation(folder: Path) -> str:
    """Two validation sets whose images were each numbered from 1."""
    config = write(folder, good())
    second = copy.deepcopy(config.val_dataloader.dataset)
    (folder / "second.json").write_text((folder / "objects.json").read_text(encoding="utf-8"), encoding="utf-8")
    second.ann_file = "second.json"
    config.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[config.val_dataloader.dataset, second])
    return checked(config)


def no_crowds_to_score(folder: Path) -> str:
    """Segments of which the metric needs to know whether they are crowds."""
    config, content = panoptic(folder)
    del content["annotations"][0]["segments_info"][0]["iscrowd"]
    (folder / "panoptic.json").write_text(json.dumps(content), encoding="utf-8")
    config.val_dataloader = copy.deepcopy(config.train_dataloader)
    config.val_evaluator = dict(type="CocoPanopticMetric", ann_file=str(folder / "panoptic.json"))
    return checked(config)


def nothing_to_score(folder: Path) -> str:
    """Validation on a list of test images."""
    config = write(folder, good())
    (folder / "test.json").write_text(json.dumps(good() | dict(annotations=[])), encoding="utf-8")
    config.val_dataloader.dataset.ann_file = "test.json"
    config.val_evaluator.ann_file = str(folder / "test.json")
    return checked(config)


def small_corners(folder: Path) -> str:
    """Boxes x1 y1 x2 y2 near the upper left corner, inside of their images either way; their masks tell."""
    content = good()
    for annotation in content["annotations"]:
        annotation.update(bbox=[8, 6, 20, 16], area=320, segmentation=[[8, 6, 20, 6, 20, 16, 8, 16]])
    config = write(folder, content)
    for split in ("train", "val"):
        config[f"{split}_dataloader"].dataset.pipeline[1].with_mask = False
    config.val_evaluator.metric = "bbox"
    return checked(config)


def byte_order_mark(folder: Path) -> str:
    config = write(folder, good())
    path = folder / "objects.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    return checked(config)


def other_classes(folder: Path) -> str:
    """Validation has the classes in another order, in its file too."""
    config = write(folder, good())
    content = good()
    content["categories"].reverse()
    (folder / "val.json").write_text(json.dumps(content), encoding="utf-8")
    config.val_dataloader.dataset.update(ann_file="val.json", metainfo=dict(classes=CLASSES[::-1]))
    config.val_evaluator.ann_file = str(folder / "val.json")
    return checked(config)


def voc(folder: Path, change: Callable[[str], str] = str, names: str = "1\n2\n3\n") -> Config:
    """Three photos of two objects each, as VOC has them; the XML text is what ``change`` leaves."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for number in "123":
        cv2.imwrite(str(folder / "JPEGImages" / f"{number}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        text = (
            f"<annotation><filename>{number}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
            "<depth>3</depth></size>"
            "<object><name>cat</name><difficult>0</difficult>"
            "<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>16</xmax><ymax>16</ymax></bndbox></object>"
            "<object><name>dog</name><difficult>0</difficult>"
            "<bndbox><xmin>30</xmin><ymin>20</ymin><xmax>60</xmax><ymax>46</ymax></bndbox></object></annotation>"
        )
        (folder / "Annotations" / f"{number}.xml").write_text(change(text), encoding="utf-8")
    (folder / "ImageSets/Main/train.txt").write_text(names, encoding="utf-8")
    dataset = dict(
        type="VOCDataset",
        data_root=str(folder),
        ann_file="ImageSets/Main/train.txt",
        data_prefix=dict(sub_data_root=""),
        metainfo=dict(classes=CLASSES),
    )
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dataset)))


VOC: dict[str, Callable[[str], str]] = {
    "VOC: names that are no class": lambda text: text.replace("cat", "Cat").replace("dog", "dog "),
    "VOC: boxes as x y width height": lambda text: text.replace("<xmax>60</xmax><ymax>46", "<xmax>25</xmax><ymax>18"),
    "VOC: boxes normalised to 0..1": lambda text: re.sub(r"(\w(?:min|max)>)(?=\d)", r"\g<1>0.", text),
    "VOC: width and height swapped": lambda text: text.replace("64</width><height>48", "48</width><height>64"),
    "VOC: every object difficult": lambda text: text.replace("<difficult>0", "<difficult>1"),
    "VOC: XML that ends early": lambda text: text[:200],
    "VOC: a box without numbers": lambda text: text.replace("<xmin>5<", "<xmin>left<"),
}  # fmt: skip


def voc_case(change: Callable[[str], str], folder: Path) -> str:
    return checked(voc(folder, change))


def voc_list(names: str, folder: Path) -> str:
    return checked(voc(folder, names=names))


def panoptic(folder: Path) -> tuple[Config, dict]:
    """A photo of two segments, a thing and stuff; the config, and the content of the file, not yet written."""
    for part in ("photos", "segments"):
        (folder / part).mkdir(parents=True)
    cv2.imwrite(str(folder / "photos/1.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)  # blue, green, red
    ids[:, :32, 2], ids[:, 32:, 2] = 1, 2
    cv2.imwrite(str(folder / "segments/1.png"), ids)
    segments = [dict(id=i, category_id=i, iscrowd=0, bbox=[32 * i - 32, 0, 32, 48], area=1536) for i in (1, 2)]
    content = dict(
        images=[dict(id=1, file_name="1.jpg", width=WIDTH, height=HEIGHT)],
        annotations=[dict(image_id=1, file_name="1.png", segments_info=segments)],
        categories=[dict(id=i, name=name, isthing=i % 2) for i, name in enumerate(CLASSES, 1)],
    )
    dataset = dict(
        type="CocoPanopticDataset",
        data_root=str(folder),
        ann_file="panoptic.json",
        data_prefix=dict(img="photos", seg="segments"),
        metainfo=dict(classes=CLASSES, thing_classes=CLASSES[:1], stuff_classes=CLASSES[1:]),
    )
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dataset))), content


def no_isthing(content: dict) -> None:
    del content["categories"][0]["isthing"]


_PANOPTIC: dict[str, Callable[[dict], Any]] = {
    "panoptic: segments of no category": lambda c: c["annotations"][0]["segments_info"][0].update(category_id=7),
    "panoptic: segments of no class": lambda c: (
        c["categories"].append(dict(id=3, name="sky", isthing=0)),
        c["annotations"][0]["segments_info"][0].update(category_id=3),
    ),
    "panoptic: segments that the PNG does not have": lambda c: c["annotations"][0]["segments_info"][0].update(id=300),
    "panoptic: things behind stuff": lambda c: [x.update(isthing=1 - x["isthing"]) for x in c["categories"]],
    "panoptic: PNGs missing": lambda c: c["images"][0].update(file_name="2.jpg"),
    "panoptic: several segments of one id": lambda c: c["annotations"][0]["segments_info"][1].update(id=1),
    "panoptic: boxes elsewhere": lambda c: c["annotations"][0]["segments_info"][1].update(bbox=[0, 0, 32, 48]),
    "panoptic: no isthing": no_isthing,
    "panoptic: a file of instances": lambda c: c["annotations"][0].pop("segments_info"),
}


def panoptic_case(edit: Callable[[dict], Any], folder: Path) -> str:
    config, content = panoptic(folder)
    edit(content)
    (folder / "panoptic.json").write_text(json.dumps(content), encoding="utf-8")
    return checked(config)


def _cases() -> Iterator[tuple[str, Callable[[Path], Any]]]:
    for name, edit in _EDITS.items():
        yield name, partial(check, edit)
    yield "evaluator with other images", other_evaluation
    yield "joined validation sets that number their images alike", joined_evaluation
    yield "panoptic: no iscrowd", no_crowds_to_score
    yield "images left out of validation, as of training", filtered_evaluation
    yield "validation on images without annotations", nothing_to_score
    yield "areas of a smaller copy", partial(check, annotations(lambda a: dict(area=a["area"] / 1000)))
    yield "no annotation to train on", no_boxes
    yield "validation on the images of training", the_same_images
    yield "boxes as x1 y1 x2 y2, all small", small_corners
    yield "a file with a byte order mark", byte_order_mark
    yield "classes in another order in validation", other_classes
    for name, change in VOC.items():
        yield name, partial(voc_case, change)
    yield "VOC: no objects", partial(voc_case, lambda text: re.sub("<object>.*</object>", "", text))
    yield "VOC: images listed twice", partial(voc_list, "1\n2\n2\n3\n")
    yield "VOC: names with their suffix", partial(voc_list, "1.jpg\n2.jpg\n")
    yield "VOC: a list of one class, with marks", partial(voc_list, "1  1\n2 -1\n")
    for name, change_panoptic in _PANOPTIC.items():
        yield name, partial(panoptic_case, change_panoptic)


CASES: dict[str, Callable[[Path], Any]] = dict(_cases())
