"""Limits that let nothing through are told wherever they are in a model; those of the toolboxes' configs are not."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from eyetoy_mm.compat import mmcv_ops
from eyetoy_mm.engine.model_limits import limit_findings


@MODELS.register_module(name="GoesOverAnImage", force=True)
class GoesOverAnImage:
    """Stands for mmseg's segmentors, whatever is installed."""

    def slide_inference(self):
        """What makes it one."""


@pytest.fixture(autouse=True, scope="module")
def _registered():
    yield
    MODELS.module_dict.pop("GoesOverAnImage")


def found(**model):
    return [str(finding) for finding in limit_findings(Config(dict(model=model)))]


@pytest.mark.parametrize(
    ("where", "limits"),
    [
        ("test_cfg.rpn", dict(nms_pre=0)),
        ("test_cfg.rpn", dict(nms_pre=-5)),
        ("test_cfg.rcnn", dict(max_per_img=0)),
        ("test_cfg.rcnn", dict(max_per_img=0.5)),
        ("train_cfg.rpn_proposal", dict(max_per_img="many")),
        ("detector.roi_head.test_cfg", dict(mask_thr_binary=1)),
        ("test_cfg", dict(score_thr=float("nan"))),
        ("test_cfg", dict(nms=dict(type="nms", iou_threshold=-0.1))),
        ("train_cfg.rcnn.2", dict(assigner=dict(type="MaxIoUAssigner", pos_iou_thr=50))),
        ("train_cfg.rpn", dict(sampler=dict(type="RandomSampler", pos_fraction=0))),
        ("semi_train_cfg", dict(cls_pseudo_thr=1.0)),
        ("panoptic_fusion_head.test_cfg", dict(max_per_image=0)),
        ("test_cfg", dict(topk=0)),
    ],
)
def test_what_lets_nothing_through_is_told_with_its_key(where, limits):
    model = dict(limits)
    for name in reversed(where.split(".")):
        model = [{}] * int(name) + [model] if name.isdigit() else {name: model}
    (told,) = found(**model)
    (key, value), *_ = limits.items()
    inner = dict(nms="nms.iou_threshold=-0.1", assigner="assigner.pos_iou_thr=50", sampler="sampler.pos_fraction=0")
    assert told.startswith(f"model.{where}.{inner.get(key, f'{key}={value!r}')}: ")


@pytest.mark.parametrize(
    ("part", "fatal"),
    [
        (dict(loss_weight=-1.0), True),
        (dict(loss_weight=float("nan")), True),
        (dict(loss_weight=0), False),
        (dict(class_weight=[1.0, -1.0]), True),
        (dict(class_weight=[0, 0]), True),
        (dict(ratios=[], type="mmdet.AnchorGenerator"), True),
        (dict(octave_base_scale=-4, type="AnchorGenerator"), True),
    ],
)
def test_what_teaches_nothing_or_what_is_wrong_is_told(part, fatal):
    (key, value), *_ = part.items()
    (finding,) = limit_findings(Config(dict(model=dict(decode_head=[dict(loss=part)]))))
    assert str(finding).startswith(f"model.decode_head.0.loss.{key}={value!r}: ") and finding.fatal is fatal


def test_overlaps_that_are_reversed_are_told_of():
    for negative in (0.7, (0, 0.7)):
        assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.3, neg_iou_thr=negative)
        (finding,) = limit_findings(Config(dict(model=dict(train_cfg=dict(rpn=dict(assigner=assigner))))))
        assert "rpn.assigner.neg_iou_thr=" in str(finding) and "is above pos_iou_thr=0.3" in str(finding)
        assert not finding.fatal


def test_layers_that_drop_everything():
    assert "dropout_ratio=1.0: should be below 1" in found(decode_head=dict(dropout_ratio=1.0))[0]
    assert not found(decode_head=dict(dropout_ratio=-1), backbone=dict(drop_rate=0.5))


def test_scores_that_leave_out_what_mean_precision_counts():
    def told(score, *metrics, part="test_cfg"):
        settings = dict(model={part: dict(rcnn=dict(score_thr=score))}, test_evaluator=[dict(type=x) for x in metrics])
        return [str(finding) for finding in limit_findings(Config(settings))]

    assert "model.test_cfg.rcnn.score_thr=0.5: detections below" in told(0.5, "CocoMetric")[0]
    assert told(0.5, "mmdet.VOCMetric")
    assert not told(0.05, "CocoMetric") and not told(0.5) and not told(0.5, "CocoMetric", part="semi_train_cfg")
    assert not told(0.6, "CocoPanopticMetric") and not told(0.6, "CocoMetric", "CocoPanopticMetric")


def test_limits_of_the_toolboxes_configs_are_left_alone():
    kept = dict(nms_pre=-1, max_per_img=100, score_thr=0.0, mask_thr_binary=-1, min_bbox_size=0, topk=13)
    assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=(0, 0.3), min_pos_iou=0.3)
    sampler = dict(type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1)
    loss = dict(type="CrossEntropyLoss", loss_weight=0.4, class_weight=[1.0, 0.1, 0])
    anchors = dict(type="AnchorGenerator", octave_base_scale=4, ratios=[0.5, 1.0], strides=[(8, 8), (16, 16)])
    nms = dict(type="soft_nms", iou_threshold=1.0, min_score=0.05)
    assert not found(test_cfg=dict(rcnn=dict(kept, nms=nms)), train_cfg=[dict(assigner=assigner, sampler=sampler)])
    assert not found(backbone=dict(max_num=0, topk=0), test_cfg=None, head=dict(loss=loss, anchors=anchors))
    assert not found(type="GoesOverAnImage", test_cfg=dict(mode="slide", crop_size=[64, 64], stride=[64, 32]))
    assert not found(type="GoesOverAnImage", test_cfg=dict(mode="whole", stride=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(), "model.test_cfg.mode=None: should be 'whole', or 'slide'"),
        (dict(mode="slide_flip", crop_size=(64, 64), stride=(64, 64)), "model.test_cfg.mode='slide_flip': should be"),
        (dict(mode="windows"), "model.test_cfg.mode='windows': should be"),
        (dict(mode="slide", crop_size=(64, 64), stride=(0, 32)), r"model.test_cfg.stride=(0, 32): should be a height"),
        (dict(mode="slide", crop_size=64, stride=(32, 32)), "model.test_cfg.crop_size=64: should be a height"),
        (dict(mode="slide", crop_size=(64, 64)), "model.test_cfg.stride=None: should be a height"),
        (dict(mode="slide", crop_size=(64, 64), stride=(64, 65)), "is beyond crop_size=(64, 64): the windows would"),
    ],
)
def test_windows_that_fail_in_the_first_evaluation(settings, message):
    (told,) = found(type="GoesOverAnImage", test_cfg=settings)
    assert message in told


@pytest.mark.parametrize(
    ("nms", "message"),
    [
        (dict(type="nmss", iou_threshold=0.5), "rcnn.nms.type='nmss': should be one of nms, soft_nms"),
        (dict(type="nms", iou_thr=0.5), "rcnn.nms.iou_thr=0.5: nms takes no iou_thr; did you mean iou_threshold?"),
        (dict(type="nms"), "rcnn.nms: nms needs iou_threshold"),
        (dict(type="soft_nms", iou_threshold=0.5, method="gauss"), "rcnn.nms.method='gauss': should be one of naive"),
    ],
)
def test_suppression_that_fails_when_something_is_found(nms, message):
    assert any(told.startswith(f"model.test_cfg.{message}") for told in found(test_cfg=dict(rcnn=dict(nms=nms))))


@pytest.mark.skipif(not mmcv_ops.needed(), reason="mmcv has its compiled ops")
def test_suppression_without_its_operator():
    told = found(test_cfg=dict(rcnn=dict(nms=dict(type="nms_rotated", iou_threshold=0.5))))
    assert any("rcnn.nms.type='nms_rotated': needs mmcv's compiled ops" in message for message in told)


def test_suppression_that_runs_is_left_alone():
    split = dict(type="nms", iou_threshold=0.6, class_agnostic=True, split_thr=200, max_num=9)
    assert not found(test_cfg=dict(rcnn=dict(nms=split), rpn=dict(nms=None), nms=dict(iou_threshold=0.5)))
