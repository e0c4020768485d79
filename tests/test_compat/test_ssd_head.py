"""SSD of mmdet predicts."""

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks

pytest.importorskip("mmdet")


def test_the_class_with_the_highest_score_is_found():
    from mmdet.models.dense_heads import SSDHead
    from mmengine.config import ConfigDict

    head = SSDHead(
        num_classes=2,
        in_channels=(4,),
        anchor_generator=dict(
            type="SSDAnchorGenerator", scale_major=False, input_size=8, basesize_ratio_range=(0.2, 0.9),
            min_sizes=[4], max_sizes=[6], strides=[4], ratios=[[2]],
        ),
        test_cfg=ConfigDict(
            nms_pre=100, nms=dict(type="nms", iou_threshold=0.5), min_bbox_size=0, score_thr=0.6, max_per_img=5
        ),
    )  # fmt: skip
    scores = torch.zeros(1, 4 * 3, 2, 2)  # 4 anchors a place, 2 classes and background
    scores[0, 1, 1, 0] = 5.0  # the second class, by the first anchor of the lower left place
    (found,) = head.predict_by_feat([scores], [torch.zeros(1, 16, 2, 2)], batch_img_metas=[dict(img_shape=(8, 8))])
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.bboxes.mean(0)[[1, 3]].mean(), torch.tensor(6.0), atol=0.6, rtol=0)
