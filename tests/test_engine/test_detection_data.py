"""What is wrong with detection data is told once, by file and value, before anything is built or trained."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.cli import main
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.detection_checks import _unfiltered_objects
from eyetoy_mm.engine.hooks import CheckDetDataHook
from eyetoy_mm.errors import UserError

pytest.importorskip("mmdet", reason="mmdetection is not installed")
ROOT = Path(__file__).resolve().parents[2]
SAMPLE_CONFIG = "configs/sample/mask-rcnn_eyetoy-demo_sample.py"


def coco(cats=("cat", "dog")) -> dict:
    """COCO's content for three photos with a box of each category."""
    return dict(
        images=[dict(id=i, file_name=f"{i}.jpg", width=32, height=24) for i in (1, 2, 3)],
        categories=[dict(id=10 * i, name=name) for i, name in enumerate(cats, 1)],
        annotations=[
            dict(
                id=10 * image + i, image_id=image, category_id=10 * i, bbox=[2, 3, 8, 9], area=72, iscrowd=0,
                segmentation=[[2, 3, 10, 3, 10, 12, 2, 12]],
            )
            for image in (1, 2, 3)
            for i in range(1, len(cats) + 1)
        ],
    )  # fmt: skip


def write(root: Path, content: dict | str) -> Path:
    (root / "photos").mkdir(parents=True)
    for number in (1, 2, 3):
        cv2.imwrite(str(root / "photos" / f"{number}.jpg"), np.full((24, 32, 3), 50 * number, np.uint8))
    path = root / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def config_of(root: Path, classes=("cat", "dog"), **settings) -> Config:
    dataset = dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="boxes.json",
        data_prefix=dict(img="photos"),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
    )
    loader = dict(dataset=dict(type="RepeatDataset", times=2, dataset=dataset | settings))
    return Config(dict(default_scope="mmdet", train_dataloader=loader))


def refused(tmp_path: Path, content: dict | str, *messages: str, **settings) -> str:
    """The message about ``content``; it names the file, and has every one of ``messages``."""
    path = write(tmp_path / "data", content)
    with pytest.raises(UserError) as error:
        check_data(config_of(path.parent, **settings), "train")
    for message in (f"{path} (train) ", *messages):
        assert message in str(error.value)
    return str(error.value)


def changed(key: str, index: int, **values) -> dict:
    content = coco()
    content[key][index].update(values)
    return content


def without(key: str, index: int, field: str) -> dict:
    content = coco()
    del content[key][index][field]
    return content


def test_good_data_passes(tmp_path):
    check_data(config_of(write(tmp_path / "data", coco()).parent), "train", "val")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_sample_passes(split):
    check_data(load_config(ROOT / SAMPLE_CONFIG, data_root=str(ROOT / "data/sample")), split)


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    path = write(tmp_path / "data", coco())
    path.unlink()
    with pytest.raises(UserError, match=rf"the dataset is not there[^$]*{path}  \(train\)[^$]*--data-root FOLDER"):
        check_data(config_of(path.parent), "train")


def test_the_evaluators_file_is_looked_for(tmp_path):
    config = config_of(write(tmp_path / "data", coco()).parent)
    config.val_dataloader, config.val_evaluator = config.train_dataloader, dict(ann_file=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"none.json  \(val\)"):
        check_data(config, "val")


@pytest.mark.parametrize("content", ['{"images": [', "", "\x00\x01", "<html>"])
def test_a_corrupt_file(tmp_path, content):
    refused(tmp_path, content, "is not JSON", "Download or write it again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no list 'images'"),
        (json.dumps({key: value for key, value in coco().items() if key != "categories"}), "no list 'categories'"),
        (without("annotations", 3, "bbox"), "annotations[3] has no bbox"),
        (without("images", 1, "file_name"), "images[1] has no file_name"),
        (coco() | dict(categories=["cat"]), "categories[0] has no id, name"),
    ],
)
def test_files_in_another_format(tmp_path, content, message):
    refused(tmp_path, content, "is not in COCO's format", message)


def test_ids_that_are_there_twice(tmp_path):
    refused(tmp_path, changed("annotations", 1, id=11), "several annotations of the same id (11)")


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_that_are_not_the_files(tmp_path):
    """mmdet drops every annotation of these in silence."""
    message = refused(tmp_path, coco(), "('cat', 'dog')", "num_classes=2", classes=("person", "car"))
    assert "in the file, not in classes: 'cat' (annotations: 3), 'dog' (annotations: 3)" in message
    assert "in classes, not in the file: 'person', 'car'" in message


def test_cocos_own_classes_are_what_a_config_without_metainfo_has(tmp_path):
    refused(tmp_path, coco(("cat", "unicorn")), "'unicorn' (annotations: 3)", "'person', 'bicycle'", metainfo={})


def test_annotations_of_other_classes_are_left_out_with_a_word(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("eyetoy_mm.datasets.findings.print_log", lambda message, *_: said.append(message))
    write(tmp_path / "data", coco(("cat", "dog", "bird")))
    check_data(config_of(tmp_path / "data"), "train")
    assert len(said) == 1 and "left out, being of no class of the config: 'bird' (annotations: 3)" in said[0]


def test_an_annotation_of_no_category(tmp_path):
    refused(tmp_path, changed("annotations", 0, category_id=99), "annotations of category_id 99")


def test_classes_in_another_order(tmp_path):
    """mmdet numbers the labels as the file lists its categories, and names them as the config does."""
    from mmdet.datasets import CocoDataset

    refused(tmp_path, coco(), "'cat', 'dog'", "'dog', 'cat'", "the file's order", classes=("dog", "cat"))
    dataset = config_of(tmp_path / "data", classes=("dog", "cat")).train_dataloader.dataset.dataset
    built = CocoDataset(**{key: dataset[key] for key in ("data_root", "ann_file", "data_prefix", "metainfo")})
    label = built.get_data_info(0)["instances"][0]["bbox_label"]
    assert built.metainfo["classes"][label] == "dog"  # but it is a cat


def test_one_class_without_its_comma(tmp_path):
    refused(tmp_path, coco(("cat",)), "classes=('cat',)", classes="cat")


# --- images and masks -----------------------------------------------------------------------------------------------


def test_images_that_are_missing(tmp_path):
    message = refused(tmp_path, changed("images", 1, file_name="gone.jpg"), "data_prefix", "--data-root")
    assert f"names 1 images (of 3) that are not on disk: {tmp_path}/data/photos/gone.jpg." in message


def test_images_that_are_not_used_may_be_missing(tmp_path):
    content = coco()
    content["images"].append(dict(id=4, file_name="unlabelled.jpg", width=32, height=24))
    check_data(config_of(write(tmp_path / "data", content).parent), "train")


def test_images_on_another_storage_are_not_looked_for(tmp_path):
    root = write(tmp_path / "data", coco()).parent
    check_data(config_of(root, data_prefix=dict(img="s3://bucket/photos")), "train")


def test_nothing_to_train_on(tmp_path):
    content = coco()
    for image in content["images"]:
        image["id"] += 100
    refused(tmp_path, content, "leaves no image: it has 3, 0 with annotations of the classes")


def test_images_that_are_too_small(tmp_path):
    refused(tmp_path, coco(), "leaves no image", "'min_size': 64", filter_cfg=dict(min_size=64))


def test_masks_that_are_not_there(tmp_path):
    refused(tmp_path, without("annotations", 2, "segmentation"), "no segmentation in annotation 21")
    boxes = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
    check_data(config_of(tmp_path / "data", pipeline=boxes), "train")


# --- heads ----------------------------------------------------------------------------------------------------------


def head(num_classes: int, **attributes) -> nn.Module:
    module = nn.Module()
    for key, value in dict(attributes, num_classes=num_classes).items():
        setattr(module, key, value)
    return module


def runner_of(classes=("cat", "dog"), val_classes=None, **heads) -> SimpleNamespace:
    def loop(names):
        return SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=names))))

    loops = dict(train_loop=loop(classes), val_loop=loop(val_classes or classes), test_loop=loop(classes))
    return SimpleNamespace(model=nn.ModuleDict(heads), **loops)


@pytest.mark.parametrize("moment", ["before_train", "before_test"])
def test_heads_have_as_many_classes_as_the_data(moment):
    check = getattr(CheckDetDataHook(), moment)
    check(runner_of(roi_head=nn.ModuleDict(dict(bbox_head=head(2), mask_head=head(2))), rpn_head=head(1)))
    check(runner_of(bbox_head=head(2), mask_head=head(80, class_agnostic=True)))
    with pytest.raises(UserError, match=r"model.bbox_head has num_classes=80, but .* 2 classes \(cat, ..., dog\)"):
        check(runner_of(bbox_head=head(80)))
    cascade = nn.ModuleDict(dict(bbox_head=nn.ModuleList([head(2), head(3)]), mask_head=head(5)))
    with pytest.raises(
        UserError, match="bbox_head.1 has num_classes=3, model.roi_head.mask_head has num_classes=5, .*num_classes=2 in"
    ):
        check(runner_of(roi_head=cascade))


def test_training_and_validation_have_the_same_classes():
    with pytest.raises(UserError, match="label 1 is 'dog' in training and 'bird' in validation"):
        CheckDetDataHook().before_train(runner_of(val_classes=("cat", "bird"), bbox_head=head(2)))


CASCADE = [f"roi_head.{kind}_head.{stage}" for kind in ("bbox", "mask") for stage in range(3)]


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("retinanet_eyetoy-t_fpn_1x_coco", ["bbox_head"]),
        ("cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco", CASCADE),
    ],
)
def test_detectors_of_every_kind_are_checked(name, heads):
    from mmdet.datasets import CocoDataset
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    config = load_config(ROOT / f"configs/eyetoy/{name}.py")
    assert config.custom_hooks[0] == dict(type="eyetoy_mm.CheckDetDataHook")
    init_default_scope("mmdet")
    config.model.backbone.update(arch="demo", init_cfg=None)
    runner = runner_of(CocoDataset.METAINFO["classes"])
    runner.model = MODELS.build(config.model)
    CheckDetDataHook().before_train(runner)
    runner.test_loop = runner_of(("cat", "dog")).test_loop
    with pytest.raises(UserError) as error:
        CheckDetDataHook().before_test(runner)
    named = ", ".join(f"model.{head} has num_classes=80" for head in heads)
    assert str(error.value).startswith(f"{named}, but ")


# --- through the tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_dataloader.dataset.metainfo.classes=('zebra','unicorn')", r"instances_train.json \(train\) does not"),
        ("model.roi_head.bbox_head.num_classes=7", "model.roi_head.bbox_head has num_classes=7, .* has 80 classes"),
    ],
)
def test_tools_tell_it_in_one_message(tmp_path, option, message):
    arguments = [ROOT / SAMPLE_CONFIG, "--data-root", ROOT / "data/sample", "--work-dir", tmp_path, "--cfg-options"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, arguments), option])
    assert str(ended.value.code).startswith("error: ") and re.search(message, str(ended.value.code))
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("evaluator", "pack", "message"),
    [
        (dict(type="CocoMetric"), {}, "CocoMetric has no ann_file, without which its first evaluation fails"),
        (dict(type="CocoMetric"), dict(meta_keys=("img_id", "instances")), None),
        (dict(type="CocoMetric", format_only=True), {}, None),
        (dict(type="VOCMetric"), {}, "the pipeline loads no boxes, at which VOCMetric's first evaluation fails"),
    ],
)
def test_metrics_without_ground_truth(tmp_path, evaluator, pack, message):
    root = write(tmp_path, coco()).parent
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackDetInputs", **pack)]
    dataset = dict(
        type="CocoDataset", data_root=str(root), ann_file="boxes.json", data_prefix=dict(img="photos"), test_mode=True,
        metainfo=dict(classes=("cat", "dog")), pipeline=pipeline,
    )  # fmt: skip
    loader = dict(dataset=dataset)
    config = Config(dict(default_scope="mmdet", val_dataloader=loader, val_evaluator=evaluator))
    if message is None:
        check_data(config, "val")
    else:
        with pytest.raises(UserError, match=message):
            check_data(config, "val")


def test_data_of_ones_own_trains_as_the_messages_ask(tmp_path):
    """Two classes, one iteration; the same data under COCO's classes is refused in the tests above."""
    root = write(tmp_path / "data", coco()).parent
    options = [f"model.roi_head.{kind}_head.num_classes=2" for kind in ("bbox", "mask")]
    for split in ("train", "val", "test"):
        dataset = f"{split}_dataloader.dataset"
        options += [f"{dataset}.metainfo.classes=('cat','dog')", f"{dataset}.ann_file=boxes.json"]
        options += [f"{dataset}.data_prefix.img=photos", f"{split}_dataloader.num_workers=0"]
        options += [f"{split}_dataloader.persistent_workers=False"]
    options += [f"val_evaluator.ann_file={root}/boxes.json", "train_cfg.max_epochs=1", "experiment_name=own-data"]
    options += ["default_hooks.checkpoint.interval=1"]
    arguments = [ROOT / SAMPLE_CONFIG, "--data-root", root, "--work-dir", tmp_path / "work", "--cfg-options", *options]
    main(["train", *map(str, arguments)])
    assert (tmp_path / "work/epoch_1.pth").is_file()


CROP = dict(type="RandomCrop", crop_size=(8, 8), recompute_bbox=True)
FILTER = dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False)
PLAIN_CROP = dict(CROP, recompute_bbox=False)
BOXES, MASKS = (dict(type="LoadAnnotations", with_bbox=True, with_mask=masks) for masks in (False, True))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([MASKS, CROP], "RandomCrop leaves boxes without width"),
        ([MASKS, FILTER, CROP], "RandomCrop leaves"),
        ([MASKS, dict(type="RandomChoice", transforms=[[dict(type="RandomFlip")], [CROP]])], "RandomCrop leaves"),
        ([BOXES, dict(type="RandAugment", aug_space=[[dict(type="Rotate")], [dict(type="ShearX")]])], "Rotate leaves"),
        ([MASKS, PLAIN_CROP], "RandomCrop leaves masks without a pixel"),
        ([MASKS, PLAIN_CROP, FILTER], "RandomCrop leaves masks without a pixel"),
        ([MASKS, dict(type="MinIoURandomCrop"), FILTER], "MinIoURandomCrop leaves masks"),
        ([MASKS, CROP, FILTER], None),
        ([MASKS, PLAIN_CROP, dict(FILTER, by_mask=True)], None),
        ([BOXES, CROP], None),
        ([BOXES, PLAIN_CROP], None),
    ],
)
def test_pipelines_that_leave_flat_boxes_and_empty_masks_are_told_before_the_run(steps, told, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr("eyetoy_mm.datasets.findings.print_log", lambda text, *args, **kwargs: messages.append(text))
    root = write(tmp_path / "data", coco()).parent
    check_data(config_of(root, pipeline=[dict(type="LoadImageFromFile"), *steps]), "train")
    found = [text for text in messages if "FilterAnnotations" in text]
    assert len(found) == (told is not None)
    if told:
        assert found[0].startswith("train_dataloader.dataset.dataset.pipeline: " + told)
        assert ("by_mask=True" in found[0]) == (MASKS in steps)


@pytest.mark.parametrize(("own", "count"), [([dict(type="MixUp")], 1), ([dict(type="MixUp"), FILTER], 0)])
def test_the_pipeline_around_a_data_set_is_looked_at(own, count):
    loader = dict(dataset=dict(type="MultiImageMixDataset", dataset=dict(pipeline=[BOXES]), pipeline=own))
    assert len(list(_unfiltered_objects(Config(dict(train_dataloader=loader)), ("train", "val")))) == count


@pytest.mark.parametrize("kind", ["bitmaps", "polygons"])
def test_masks_without_a_pixel_are_logged_once_and_counted(kind):
    """A crop that takes a corner of a box, as mmdet makes it."""
    from mmdet.datasets.transforms import FilterAnnotations, RandomCrop
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks, PolygonMasks

    whole, lower = [0, 0, 8, 0, 8, 8, 0, 8], [9, 30, 31, 9, 31, 31]  # the second is painted below the diagonal
    masks = PolygonMasks([[np.array(x, float)] for x in (whole, lower)], 32, 32)
    boxes = HorizontalBoxes(torch.tensor([[0.0, 0, 8, 8], [9, 9, 31, 31]]))
    masks = BitmapMasks(masks.to_bitmap().masks, 32, 32) if kind == "bitmaps" else masks
    labels = dict(gt_bboxes_labels=np.zeros(2, int), gt_ignore_flags=np.zeros(2, bool))
    image = dict(img=np.zeros((32, 32, 3), np.uint8), gt_bboxes=boxes, gt_masks=masks, **labels)
    crop = RandomCrop(crop_size=(12, 12))
    crop._rand_offset = lambda margin: (0, 0)
    cropped = crop(image)

    warnings, hook = [], CheckDetDataHook()
    runner = SimpleNamespace(logger=SimpleNamespace(warning=warnings.append))

    def look(results):
        instances = InstanceData(bboxes=results["gt_bboxes"], masks=results["gt_masks"])
        sample = BaseDataElement(metainfo=dict(img_path="crowd.png"), gt_instances=instances)
        hook.before_train_iter(runner, 0, dict(data_samples=[sample]))

    for _ in range(3):
        look(cropped)
    look(FilterAnnotations(min_gt_bbox_wh=(1e-2, 1e-2), by_mask=True, keep_empty=False)(cropped))
    hook.after_train(runner)
    assert len(warnings) == 2 and warnings[0].startswith("crowd.png: 1 of 2 objects have a box and no pixel")
    assert warnings[1].startswith("3 objects had a box and no pixel")
