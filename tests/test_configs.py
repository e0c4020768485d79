"""Every config parses, stays a diff, builds, and takes one training step and one prediction on a small input."""

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.eyetoy import ARCHS
from eyetoy_mm.engine.config import load_config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.py")) if "_base_" not in path.parts]
ABLATIONS = [path for path in CONFIGS if path.parent.name == "ablations"]
SIZE = 64


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
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    masks[:, 10:50, 5:60] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 10.0, 60.0, 50.0]]),
        labels=torch.tensor([3]),
        masks=BitmapMasks(masks.numpy(), SIZE, SIZE),
    )
    return sample


def classification_sample(model):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


SAMPLES = {"mmseg": segmentation_sample, "mmdet": detection_sample, "mmpretrain": classification_sample}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_leaves_are_diffs(path):
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 25


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_one_step_and_one_prediction(path):
    config = load_config(path, options=demo_size(path) if path in ABLATIONS else None)
    pytest.importorskip(config.default_scope, reason=f"{config.default_scope} is not installed")
    init_default_scope(config.default_scope)
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))  # as the Runner does
    if "size" in config.model.data_preprocessor:
        config.model.data_preprocessor.size = (SIZE, SIZE)
    model = MODELS.build(config.model)
    model.init_weights()
    data = dict(
        inputs=[torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)],
        data_samples=[SAMPLES[config.default_scope](model) for _ in range(2)],
    )
    losses = model.train()(**model.data_preprocessor(data, True), mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)

    with torch.no_grad():
        results = model.eval().test_step(data)
    for result in results:
        if config.default_scope == "mmseg":
            assert result.pred_sem_seg.data.shape == (1, SIZE, SIZE)
        elif config.default_scope == "mmpretrain":
            assert result.pred_score.shape == (model.head.num_classes,)
        else:
            assert result.pred_instances.masks.shape[1:] == (SIZE, SIZE)
