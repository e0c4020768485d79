"""What comes before the backbone, against the toolboxes' own preprocessors and torch's own pool."""

import pytest
import torch

from eyetoy_mm.errors import UserError
from eyetoy_mm.export.preparing import AveragePool, Preparation, replace_pools

STATISTICS = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0])


def preprocessors():
    mmseg = pytest.importorskip("mmseg.models", reason="mmsegmentation is not installed")
    mmdet = pytest.importorskip("mmdet.models", reason="mmdet is not installed")
    mmpretrain = pytest.importorskip("mmpretrain.models", reason="mmpretrain is not installed")
    yield mmseg.SegDataPreProcessor(**STATISTICS, bgr_to_rgb=True, size=(8, 8), pad_val=3)
    yield mmseg.SegDataPreProcessor(**STATISTICS, size=(8, 8), test_cfg=dict(size_divisor=32), pad_val=3)
    yield mmseg.SegDataPreProcessor(bgr_to_rgb=True, size=(8, 8))
    yield mmdet.DetDataPreprocessor(**STATISTICS, bgr_to_rgb=True, pad_size_divisor=32, pad_value=2)
    yield mmdet.DetDataPreprocessor(**STATISTICS, pad_size_divisor=1)
    yield mmpretrain.ClsDataPreprocessor(**STATISTICS, to_rgb=True, pad_size_divisor=8, pad_value=1)


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_preparation_does_what_the_preprocessor_does(order):
    from mmengine.structures import BaseDataElement

    images = torch.randint(0, 256, (2, 3, 33, 50), generator=torch.Generator().manual_seed(0)).float()
    loaded = images.flip(1) if order == "bgr" else images
    for preprocessor in preprocessors():
        samples = [BaseDataElement(metainfo=dict(img_shape=(33, 50))) for _ in images]
        expected = preprocessor(dict(inputs=list(loaded), data_samples=samples))["inputs"]
        torch.testing.assert_close(Preparation(preprocessor, order)(images), expected, atol=0, rtol=0)


def test_padding_to_one_size_is_refused():
    mmseg = pytest.importorskip("mmseg.models", reason="mmsegmentation is not installed")
    preprocessor = mmseg.SegDataPreProcessor(size=(8, 8), test_cfg=dict(size=(64, 64)))
    with pytest.raises(UserError, match=r"pads every image to size=\(64, 64\).*size_divisor"):
        Preparation(preprocessor, "bgr")


def test_pools_are_torchs_at_every_size():
    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(3)), torch.nn.AdaptiveAvgPool2d(1))
    pool = torch.nn.AdaptiveAvgPool2d((3, 6))
    for size in ((1, 1), (2, 5), (7, 13), (30, 6)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(AveragePool((3, 6))(x), pool(x))
    replace_pools(model)
    assert isinstance(model[0][0], AveragePool) and isinstance(model[1], torch.nn.AdaptiveAvgPool2d)
