"""Every config parses, stays a diff, is in the model zoo, builds, and takes a step and a prediction.

Full-size models would take minutes to step, so that each proof takes what it needs:

- Of every config, the model is built at its own size, without memory (``skeletons.py``): it has as many parameters as
  the metafile says, channels of all its parts fit, and a backward pass reaches every parameter. Heads with queries
  choose by values: of DETRs and Mask2Formers only backbone and neck run so, and a step shows the rest.
- A step with values (loss and every gradient finite) and a prediction are taken at full size by as few configs as have
  among them every part, backbone, neck or head, of every config: parts that differ in numbers alone are one. The
  smallest model with a part takes the step; ablations, each a switch of the backbone, do in the size of the demo.

``tools/dry_run.py`` does all of it, and more, with each config at full size.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.archs import ARCHS
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import all_configs, build, few_proposals, few_queries, step, without_downloads
from tests.skeletons import parameters_without_gradient, parts, skeleton

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = all_configs()
ABLATIONS = [path for path in CONFIGS if path.parent.name == "ablations"]
SIZE = 64
METAFILES = yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]
MODEL_ZOO = {
    model["Config"]: model
    for metafile in METAFILES
    for model in yaml.safe_load((ROOT / metafile).read_text())["Models"]
}


def segmentation_sample(model):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE)))
    labels = torch.randint(0, model.decode_head.num_classes, (1, SIZE, SIZE))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def detection_sample(model):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    shape = dict(
        ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0), batch_input_shape=(SIZE, SIZE)
    )
    sample = DetDataSample(metainfo=shape)
    classes = max(m.num_classes for m in model.modules() if isinstance(getattr(m, "num_classes", None), int))
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    masks[:, 10:50, 5:60] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 10.0, 60.0, 50.0]]),
        labels=torch.tensor([min(3, classes - 1)]),
        masks=BitmapMasks(masks.numpy(), SIZE, SIZE),
    )
    sample.gt_sem_seg = PixelData(sem_seg=3 * masks + 90 * (1 - masks))  # a thing on stuff
    return sample


def classification_sample(model):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


SAMPLES = {"mmseg": segmentation_sample, "mmdet": detection_sample, "mmpretrain": classification_sample}


def test_three_configs_have_short_names_and_stand_at_the_top():
    top = [path.stem for path in CONFIGS if path.parent.name == "configs"]
    assert top == ["eyetoy_imagenet", "mask_rcnn_eyetoy_coco", "upernet_eyetoy_ade20k"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_leaves_are_diffs(path):
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 25
    assert code[0].startswith('"""')  # it says what it is
    assert not re.search(r"[A-Z ]", path.stem)


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.parent.name != "sample"], ids=lambda p: p.stem)
def test_models_are_in_the_zoo_under_the_name_of_their_config(path):
    model = MODEL_ZOO[str(path.relative_to(ROOT))]
    assert model["Name"] == path.stem


def test_the_zoo_has_no_other_models():
    names = [model["Name"] for model in MODEL_ZOO.values()]
    assert len(set(names)) == len(names)
    assert {ROOT / config for config in MODEL_ZOO} <= set(CONFIGS)
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("metafile.yml")} == set(METAFILES)


def demo_size(path):
    """Options that make an ablation as small as the demo and leave its switches as they are."""
    channels = list(ARCHS["demo"].embed_dims)
    heads = (
        {"decode_head.in_channels": channels, "decode_head.channels": 64, "auxiliary_head.in_channels": channels[2]}
        if path.stem.startswith("upernet")
        else {"head.in_channels": channels[3]}
    )
    return {f"model.{key}": value for key, value in ({"backbone.arch.type": "demo"} | heads).items()}


@cache
def usual_config(name):
    return load_config(ROOT / "configs" / f"{name}.py", work_dir="same").to_dict()


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.stem)
def test_ablations_change_the_backbone_alone(path):
    changed = load_config(path, work_dir="same").to_dict()
    usual = usual_config("upernet_eyetoy_ade20k" if path.stem.startswith("upernet") else "eyetoy_imagenet")
    backbone = changed["model"].pop("backbone")
    assert backbone != usual["model"]["backbone"]
    assert changed == usual | dict(model={k: v for k, v in usual["model"].items() if k != "backbone"})
    with torch.device("meta"):
        MODELS.build(backbone)  # at its own size


class Sketch(NamedTuple):
    """What is known of a config's model without its values."""

    parameters: int
    parts: set[tuple]
    without_gradient: list[str]


def ready(path, options=None):
    """A config for small images and few proposals, and none of its toolbox's if that is not installed."""
    config = load_config(path, options=options)
    pytest.importorskip(config.default_scope, reason=f"{config.default_scope} is not installed")
    few_proposals(config)
    without_downloads(config)
    return config


@cache
def sketch(path) -> Sketch:
    """Of each model once: configs that differ in data or schedule share it."""
    config = ready(path)
    key = str((config.default_scope, config.model, config.get("data_preprocessor")))
    if key not in SKETCHES:
        SKETCHES[key] = sketched(config)
    return SKETCHES[key]


SKETCHES: dict[str, Sketch] = {}


def sketched(config) -> Sketch:
    model = skeleton(config)
    size = dict(mmdet=(256, 352), mmpretrain=(224, 224)).get(config.default_scope) or model.data_preprocessor.size
    # parts are compared before it runs: modules may keep what they have seen
    return Sketch(sum(p.numel() for p in model.parameters()), parts(model), parameters_without_gradient(model, size))


@cache
def stepped() -> set[Path]:
    """The configs that take a step: of each part the smallest, and ablations where no other has it."""
    found: dict[tuple, Path] = {}
    for path in sorted(CONFIGS, key=lambda path: (path in ABLATIONS, sketch(path).parameters)):
        for part in sketch(path).parts:
            found.setdefault(part, path)
    return set(found.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_its_own_size_is_that_of_the_zoo_fits_together_and_every_parameter_gets_a_gradient(path):
    parameters = MODEL_ZOO.get(str(path.relative_to(ROOT)), {}).get("Metadata", {}).get("Parameters")
    assert parameters in (None, sketch(path).parameters)
    assert sketch(path).without_gradient == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_one_step_and_one_prediction(path):
    if path not in stepped():
        return  # every part of it is in configs that are
    config = ready(path, demo_size(path) if path in ABLATIONS else None)
    if "size" in config.model.get("data_preprocessor", {}):
        config.model.data_preprocessor.size = (SIZE, SIZE)
    few_queries(config)
    config.model.get("data_preprocessor", {}).pop("batch_augments", None)  # padding to full size
    model = build(config)
    data = dict(
        inputs=[torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)],
        data_samples=[SAMPLES[config.default_scope](model) for _ in range(2)],
    )
    step(model, data)

    with torch.no_grad():
        results = model.eval().test_step(data)
    for result in results:
        if config.default_scope == "mmseg":
            assert result.pred_sem_seg.data.shape == (1, SIZE, SIZE)
        elif "pred_panoptic_seg" in result:
            assert result.pred_panoptic_seg.sem_seg.shape == (1, SIZE, SIZE)
        elif config.default_scope == "mmpretrain":
            assert result.pred_score.shape == (model.head.num_classes,)
        elif model.with_mask:
            assert result.pred_instances.masks.shape[1:] == (SIZE, SIZE)
        else:
            assert result.pred_instances.bboxes.shape[1:] == (4,)
