"""Whole, sliding and test-time augmented inference of our segmentation configs, against their definitions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from torch.nn.functional import interpolate

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
ROOT = Path(__file__).resolve().parents[1]
DEMO = {
    "model.backbone.arch.type": "demo",
    "model.decode_head.in_channels": [32, 64, 128, 192],
    "model.decode_head.channels": 32,
    "model.auxiliary_head.in_channels": 128,
    "model.data_preprocessor.size": (64, 64),
}


@pytest.fixture(scope="module")
def slide():
    options = DEMO | {"model.test_cfg.crop_size": (64, 64), "model.test_cfg.stride": (43, 43)}
    path = ROOT / "configs/eyetoy/upernet_eyetoy-t_8xb2-160k_ade20k-512x512-slide.py"
    return build(load_config(path, options=options)).eval()


def logits(model, images: torch.Tensor) -> torch.Tensor:
    size = tuple(images.shape[-2:])
    return model.inference(images, [dict(ori_shape=size, img_shape=size, pad_shape=size)] * len(images))


@torch.no_grad()
def test_windows_are_averaged_where_they_overlap(slide):
    images = torch.randn(1, 3, 80, 110)
    total, count = torch.zeros(1, 150, 80, 110), torch.zeros(1, 1, 80, 110)
    for top in (0, 16):  # the last window ends with the image
        for left in (0, 43, 46):
            window = (..., slice(top, top + 64), slice(left, left + 64))
            total[window] += slide.encode_decode(images[window], [dict(img_shape=(64, 64))])
            count[window] += 1
    torch.testing.assert_close(logits(slide, images), total / count, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_window_is_the_whole(slide):
    images = torch.randn(2, 3, 64, 64)
    whole = build(load_config(ROOT / "configs/upernet_eyetoy_ade20k.py", options=DEMO)).eval()
    assert whole.test_cfg.mode == "whole"
    whole.load_state_dict(slide.state_dict())
    torch.testing.assert_close(logits(slide, images), logits(whole, images))


@torch.no_grad()
def test_augmented_prediction_is_the_mean_over_scales_and_flips(slide):
    from mmengine.dataset import Compose
    from mmengine.registry import MODELS
    from mmseg.datasets.transforms import LoadAnnotations  # noqa: F401 - registers the pipeline's transforms

    config = load_config(ROOT / "configs/upernet_eyetoy_ade20k.py", options=DEMO)
    config.tta_pipeline[1].transforms[0] = [dict(type="Resize", scale_factor=s, keep_ratio=True) for s in (0.5, 1.0)]
    photo = ROOT / "data/sample/images/validation/000000005001.jpg"
    mask = ROOT / "data/sample/annotations/validation/000000005001.png"
    data = Compose(config.tta_pipeline)(
        dict(img_path=str(photo), seg_map_path=str(mask), reduce_zero_label=True, seg_fields=[], label_map=None)
    )
    assert len(data["inputs"]) == 4  # two scales, each of them flipped and not
    model = build(config)
    model.load_state_dict(slide.state_dict())
    tta = MODELS.build(dict(config.tta_model, module=model)).eval()
    batch = dict(inputs=[[x] for x in data["inputs"]], data_samples=[[x] for x in data["data_samples"]])
    (result,) = tta.test_step(batch)

    height, width = data["data_samples"][0].ori_shape
    mean = torch.zeros(150, height, width)
    for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
        normal = (image.float()[[2, 1, 0]] - model.data_preprocessor.mean) / model.data_preprocessor.std
        scores = interpolate(logits(model, normal[None]), (height, width), mode="bilinear", align_corners=False)[0]
        mean += (scores.flip(-1) if sample.flip else scores).softmax(0) / 4
    agreement = np.mean((result.pred_sem_seg.data[0] == mean.argmax(0)).numpy())
    assert isinstance(result.pred_sem_seg, PixelData) and agreement > 0.999
