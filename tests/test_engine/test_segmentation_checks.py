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


@pytest.fixture
def config(tmp_path) -> Config:
    """A config without a scope, whose types are classes."""
    for folder, numbers in (("images", np.zeros((4, 4, 3))), ("masks", np.eye(4))):
        (tmp_path / folder).mkdir()
        suffix = "jpg" if folder == "images" else "png"
        Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / folder / f"0.{suffix}")
    dataset = dict(
        type=BaseSegDataset, data_root=str(tmp_path), data_prefix=dict(img_path="images", seg_map_path="masks"),
        metainfo=dict(classes=("a", "b")), pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )  # fmt: skip
    loaders = dict(train_dataloader=dict(dataset=dataset), val_dataloader=dict(dataset=dict(dataset)))
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
