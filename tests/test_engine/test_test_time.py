"""Test-time augmentation of objects with masks, which mmdet refuses."""

import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmdet", reason="mmdet is not installed")
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from eyetoy_mm.engine.instance_tta import InstanceTTAModel
from eyetoy_mm.engine.test_time import check_can_be_merged, merging_model
from eyetoy_mm.errors import UserError


class Model(nn.Module):
    def test_step(self, data):
        raise AssertionError("its predictions are given")


def view(corners, scores, flip, size=(12, 20)) -> DetDataSample:
    """What a model finds in one view: boxes that are filled, in the view as it lies."""
    height, width = size
    masks = torch.zeros(len(corners), height, width, dtype=torch.bool)
    boxes = []
    for mask, (x1, y1, x2, y2) in zip(masks, corners):
        x1, x2 = (width - x2, width - x1) if flip else (x1, x2)
        mask[y1:y2, x1:x2] = True
        boxes.append([x1, y1, x2, y2])
    sample = DetDataSample(metainfo=dict(ori_shape=size, flip=flip, flip_direction="horizontal" if flip else None))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.zeros(len(corners), dtype=torch.int64),
        masks=masks,
    )
    return sample


def merged(*views):
    settings = merging_model(
        Config(
            dict(
                tta_model=dict(type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=2))
            )
        )
    )
    kind = settings.pop("type")
    assert kind is InstanceTTAModel
    return kind(module=Model(), **settings).merge_preds([list(views)])[0].pred_instances


def test_objects_keep_the_masks_of_the_views_that_they_were_found_in():
    first, second, third = (2, 1, 8, 6), (10, 3, 19, 11), (0, 9, 3, 12)
    found = merged(view([first, third], [0.5, 0.1], flip=False), view([first, second], [0.9, 0.7], flip=True))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])  # the best two, the double one once
    assert found.bboxes.tolist() == [list(first), list(second)]
    for mask, (x1, y1, x2, y2) in zip(found.masks, (first, second)):
        assert mask.sum() == mask[y1:y2, x1:x2].sum() == (x2 - x1) * (y2 - y1)


def test_nothing_is_found():
    assert len(merged(view([], [], flip=False), view([], [], flip=True))) == 0


def test_panoptic_models_are_refused():
    model = nn.Module()
    model.panoptic_fusion_head = nn.Module()
    model.panoptic_fusion_head.test_cfg = dict(panoptic_on=False)
    check_can_be_merged(model)
    model.panoptic_fusion_head.test_cfg = {}
    with pytest.raises(UserError, match="--tta: segments of a panoptic model cannot be merged"):
        check_can_be_merged(model)
