"""Settings of segmentation configs that contradict each other."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from mmseg.datasets import BaseSegDataset

from eyetoy_mm.engine.config_parts import toolbox_of
from eyetoy_mm.engine.data_checks import data_findings
from eyetoy_mm.engine.pipeline_checks import late_annotation_findings


@pytest.fixture
def config(tmp_path) -> Config:
    """A config without a scope, whose types are classes."""
    kinds = {"images": np.zeros((4, 4, 3)), "masks": np.eye(4)}
    for folder, numbers in {**kinds, **{f"val/{kind}": numbers for kind, numbers in kinds.items()}}.items():
        (tmp_path / folder).mkdir(parents=True)
        suffix = "jpg" if folder.endswith("images") else "png"
        Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / folder / f"0.{suffix}")
    dataset = dict(
        type=BaseSegDataset, data_root=str(tmp_path), data_prefix=dict(img_path="images", seg_map_path="masks"),
        metainfo=dict(classes=("a", "b")), pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )  # fmt: skip
    other = dict(dataset, data_prefix=dict(img_path="val/images", seg_map_path="val/masks"))
    loaders = dict(train_dataloader=dict(dataset=dataset), val_dataloader=dict(dataset=other))
    return Config(dict(model=dict(decode_head=dict(num_classes=2)), val_evaluator=dict(type="IoUMetric"), **loaders))


def found(config: Config, **options) -> list[tuple[str, bool]]:
    for key, value in options.items():
        config.merge_from_dict({key.replace("__", "."): value})
    return [(finding.kind, finding.fatal) for finding in data_findings(config, "train", "val")]


def test_the_toolbox_is_told_by_the_types(config):
    assert toolbox_of(config) == "mmseg" and found(config) == []
    assert found(config, train_dataloader__dataset__seg_map_suffix="_mask.png") == [("masks missing", True)]
    assert toolbox_of(Config(dict(model=dict(type="mmdet.RetinaNet")))) == "mmdet"
    assert toolbox_of(Config(dict(model=dict(type="RetinaNet")))) is None

    class Own(BaseSegDataset):
        pass

    assert toolbox_of(Config(dict(train_dataloader=dict(dataset=dict(type=Own))))) == "mmseg"


def test_one_class(config):
    classes = dict(train_dataloader__dataset__metainfo__classes=("a",))
    assert ("one class", True) in found(config, model__decode_head__num_classes=1, **classes)


def test_zero_labels_of_training_alone(config):
    assert ("reduce_zero_label", False) in found(config, train_dataloader__dataset__reduce_zero_label=True,
                                                 val_dataloader__dataset__reduce_zero_label=False)  # fmt: skip


def test_zero_labels_of_one_split_that_is_told_of_alone(config):
    assert ("reduce_zero_label", False) in found(config, val_dataloader__dataset__reduce_zero_label=True)


def test_joined_data_sets_of_other_classes(config):
    orders = (("a", "b"), ("b", "a"))
    first, second = (dict(config.train_dataloader.dataset, metainfo=dict(classes=names)) for names in orders)
    config.val_dataloader = None
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[first, first])
    assert ("classes", True) not in found(config)
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[first, second])
    assert ("classes", True) in found(config)


def test_a_label_that_training_ignores_and_the_metric_counts(config):
    assert ("ignore_index", False) in found(config, model__decode_head__ignore_index=1)
    assert ("ignore_index", False) not in found(config, val_evaluator__ignore_index=1)


def test_evaluation_without_masks(config):
    config.val_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile")]
    assert found(config) == [("val_dataloader.dataset.pipeline", True)]

    class Own:
        """A step that may load what it likes."""

        def __call__(self, results):
            return results

    config.val_dataloader.dataset.pipeline.append(dict(type=Own))
    assert found(config) == []


@pytest.mark.parametrize(("name", "fatal"), [("CLASSES", True), ("PALETTE", False)])
def test_old_names_of_metainfo(name, fatal, config):
    config.train_dataloader.dataset.metainfo[name] = ("a", "b")
    assert found(config) == [("train_dataloader.dataset.metainfo", fatal)]


def test_images_of_training_in_evaluation(config):
    config.val_dataloader.dataset.data_prefix = config.train_dataloader.dataset.data_prefix
    (finding,) = data_findings(config, "train", "val")
    assert finding.kind == "images of training" and "1 of 1 in val" in finding.message and not finding.fatal


def test_names_of_classes(config):
    assert found(config, val_dataloader__dataset__metainfo=dict(classes=("b", "a"))) == [("classes", True)]
    key = "train_dataloader.dataset.metainfo"
    assert found(config, train_dataloader__dataset__metainfo=dict(classes="ab")) == [(key, True)]
    assert found(config, train_dataloader__dataset__metainfo=dict(classes=("a", "a"))) == [(key, True)]


def test_what_is_filled_in_is_learnt(config):
    assert found(config, model__data_preprocessor=dict(seg_pad_val=0)) == [("filled labels", False)]
    pad = dict(type="Pad", size=(8, 8), pad_val=dict(img=0, seg=1))
    steps = [
        *config.train_dataloader.dataset.pipeline,
        pad,
        dict(type="RandomRotate", prob=1.0, degree=9, seg_pad_val=0),
    ]
    config.train_dataloader.dataset.pipeline = steps
    assert found(config, model__data_preprocessor=dict(seg_pad_val=255)) == [("filled labels", False)] * 2


@pytest.mark.parametrize(
    ("scope", "steps", "fatal"),
    [
        ("mmseg", ["RandomFlip", "LoadAnnotations"], True),
        ("mmseg", ["Resize", "LoadAnnotations", "RandomFlip"], False),  # compared at the size of the mask
        ("mmdet", ["Resize", "LoadAnnotations"], True),
        ("mmdet", ["LoadAnnotations", "Resize"], False),
        ("mmdet", ["Resize"], False),
    ],
)
def test_annotations_of_an_image_that_was_moved(scope, steps, fatal):
    dataset = dict(type="CocoDataset", pipeline=[dict(type="LoadImageFromFile"), *(dict(type=name) for name in steps)])
    wrapped = dict(type="RepeatDataset", times=2, dataset=dataset)
    found = list(late_annotation_findings(Config(dict(train_dataloader=dict(dataset=wrapped))), scope))
    assert [finding.kind for finding in found] == ["train_dataloader.dataset.dataset.pipeline"] * fatal
    assert not fatal or f"LoadAnnotations comes after {steps[0]}" in found[0].message
