"""mmdet's Mask R-CNN trains and predicts without mmcv's compiled ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import eyetoy_mm  # noqa: F401

pytest.importorskip("torchvision")
pytest.importorskip("mmdet")

IMAGES = [[3, 96, 128], [3, 80, 96]]


@pytest.fixture(scope="module")
def model() -> Any:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config

    register_all_modules()
    config = get_config("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py").model
    config.backbone.update(depth=18, init_cfg=None)
    config.neck.update(in_channels=[64, 128, 256, 512], out_channels=32)
    config.rpn_head.update(in_channels=32, feat_channels=32)
    for extractor in (config.roi_head.bbox_roi_extractor, config.roi_head.mask_roi_extractor):
        extractor.out_channels = 32
    config.roi_head.bbox_head.update(in_channels=32, fc_out_channels=64, num_classes=5)
    config.roi_head.mask_head.update(in_channels=32, conv_out_channels=32, num_classes=5)
    config.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    torch.manual_seed(0)
    return MODELS.build(config)


def inputs() -> dict[str, Any]:
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, IMAGES, num_items=[2, 3], num_classes=5, with_mask=True)


def test_loss_and_gradients(model: Any) -> None:
    model.train()
    losses = model(**model.data_preprocessor(inputs(), True), mode="loss")
    loss, log = model.parse_losses(losses)
    assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"} <= log.keys()
    # The mask head sees the image only through roi_align: so does its gradient the backbone.
    losses["loss_mask"].backward(retain_graph=True)
    assert model.backbone.layer4[0].conv1.weight.grad.abs().sum() > 0
    model.zero_grad()
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_predictions(model: Any) -> None:
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(inputs(), False), mode="predict")
    for (_, height, width), result in zip(IMAGES, results, strict=True):
        found = result.pred_instances
        assert 0 < len(found) <= 20
        assert found.bboxes.shape == (len(found), 4) and found.bboxes.isfinite().all()
        assert found.masks.shape == (len(found), height, width) and found.masks.dtype == torch.bool
        assert (found.bboxes[:, 2] <= width).all() and (found.bboxes[:, 3] <= height).all()


def test_models_of_the_three_toolboxes_import() -> None:
    pytest.importorskip("mmseg")
    pytest.importorskip("mmpretrain")
    import mmdet.models
    import mmpretrain.models
    import mmseg.models

    assert mmdet.models.MaskRCNN and mmseg.models.EncoderDecoder and mmpretrain.models.ImageClassifier
