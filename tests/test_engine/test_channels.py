"""Channels of necks and heads: filled in from the backbone where they are left out, else checked, in every toolbox."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.channels import match_channels
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.errors import UserError

EYETOY = dict(type="eyetoy_mm.EyeToy", arch=dict(type="demo"))
NAT = dict(type="eyetoy_mm.NAT", arch="mini")
MODELS_OF = {
    "upernet": ("mmseg", "upernet_eyetoy_ade20k.py"),
    "mask-rcnn": ("mmdet", "mask_rcnn_eyetoy_coco.py"),
    "retinanet": ("mmdet", "eyetoy/retinanet_eyetoy-t_fpn_1x_coco.py"),
    "classifier": ("mmpretrain", "eyetoy_imagenet.py"),
}


def config(name, **options):
    scope, path = MODELS_OF[name]
    pytest.importorskip(scope, reason=f"{scope} is not installed")
    return load_config(f"configs/{path}", options={key.replace("__", "."): x for key, x in options.items()})


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("upernet", ("decode_head", "auxiliary_head"), ([64, 128, 384, 576], 384)),
        ("mask-rcnn", ("neck",), ([64, 128, 384, 576],)),
        ("retinanet", ("neck",), ([128, 384, 576],)),
        ("classifier", ("head",), (576,)),
    ],
)
def test_what_is_left_out_is_what_the_config_says_today(name, keys, expected):
    usual = config(name)
    assert tuple(usual.model[key].in_channels for key in keys) == expected
    left_out = config(name, **{f"model__{key}__in_channels": None for key in keys})
    assert left_out.model == usual.model


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("upernet", "decode_head", [64, 128, 384, 512],
         r"decode_head.in_channels=\[64, 128, 384, 512\] should be \[64, 128, 384, 576\]"),
        ("upernet", "auxiliary_head", 192, "model.auxiliary_head.in_channels=192 should be 384"),
        ("mask-rcnn", "neck", [96, 192, 384, 768], r"model.neck.in_channels=.* should be \[64, 128, 384, 576\]"),
        ("mask-rcnn", "neck", [64, 128, 384], r"in_channels=\[64, 128, 384\] should be \[64, 128, 384, 576\]"),
        ("retinanet", "neck", [64, 128, 384], r"gives 3 maps of 128, 384, 576 channels, and model.neck.in_channels="),
        ("classifier", "head", 768, "in_channels=768 should be 576. Set each of these keys so, .* to None"),
    ],
)  # fmt: skip
def test_other_channels_are_named_with_what_they_should_be(name, key, value, message):
    with pytest.raises(UserError, match=message):
        config(name, **{f"model__{key}__in_channels": value})


def test_every_mistake_is_in_one_message():
    with pytest.raises(UserError) as caught:
        config("upernet", model__backbone__arch__type="base")
    text = str(caught.value)
    assert "EyeToy gives 4 maps of 96, 192, 512, 768 channels" in text
    assert "decode_head.in_channels=[64, 128, 384, 576] should be [96, 192, 512, 768]" in text
    assert "auxiliary_head.in_channels=384 should be 512" in text


def matched(scope, **model):
    pytest.importorskip(scope, reason=f"{scope} is not installed")
    config = Config(dict(default_scope=scope, model=model))
    match_channels(config)
    return config.model


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (EYETOY, [32, 64, 128, 192]),
        (NAT, [64, 128, 256, 512]),
        (NAT | dict(out_indices=(1, 3)), [128, 512]),
        (dict(type="eyetoy_mm.DiNAT_s", arch="base"), [128, 256, 512, 1024]),
    ],
)
def test_every_backbone_of_ours(backbone, expected):
    channels = matched("mmdet", backbone=backbone, neck=dict(type="FPN", out_channels=8, num_outs=4)).neck.in_channels
    assert channels == expected


def test_a_filled_model_is_built():
    model = matched(
        "mmpretrain", type="ImageClassifier", backbone=NAT | dict(out_type="avg_featmap"),
        head=dict(type="LinearClsHead", num_classes=3),
    )  # fmt: skip
    init_default_scope("mmpretrain")
    assert MODELS.build(model).head.fc.in_features == 512


def test_necks_that_pass_channels_on_and_those_that_make_their_own():
    pooled = matched(
        "mmpretrain", backbone=EYETOY, neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=3),
    )  # fmt: skip
    assert pooled.head.in_channels == 192 and "in_channels" not in pooled.neck
    made = matched(
        "mmseg", backbone=EYETOY, neck=dict(type="FPN", out_channels=64, num_outs=4),
        decode_head=dict(type="FPNHead", in_channels=[64] * 4, in_index=[0, 1, 2, 3]),
    )  # fmt: skip
    assert made.neck.in_channels == [32, 64, 128, 192] and made.decode_head.in_channels == [64] * 4


def test_what_stands_on_a_neck_with_channels_of_its_own_is_left_alone():
    """``Feature2Pyramid`` takes one map and makes four, without any ``in_channels``."""
    given = dict(
        backbone=EYETOY | dict(out_indices=[3]),
        neck=dict(type="Feature2Pyramid", embed_dim=192),
        decode_head=dict(type="UPerHead", in_channels=[192] * 4, in_index=[0, 1, 2, 3]),
    )
    assert matched("mmseg", **given) == given


YOLO = dict(type="YOLOV3Neck", num_scales=3, in_channels=[192, 128, 64], out_channels=[64, 32, 16])


@pytest.mark.parametrize(
    ("scope", "backbone", "neck", "filled", "channels"),
    [
        ("mmdet", dict(out_indices=[1, 2, 3]), YOLO, [192, 128, 64], [64, 32, 16]),  # the deepest first
        (
            "mmdet", dict(out_indices=[3]),
            dict(type="DilatedEncoder", out_channels=8, block_mid_channels=4, num_residual_blocks=1,
                 block_dilations=[1]),
            192, [8],
        ),
        (
            "mmdet", dict(out_indices=[3]),
            dict(type="CTResNetNeck", num_deconv_filters=[8], num_deconv_kernels=[4]),
            192, [8],
        ),
        (
            "mmseg", dict(out_indices=[2, 3]),
            dict(type="MultiLevelNeck", out_channels=16, scales=[1, 1]),
            [128, 192], [16, 16],
        ),
    ],
)  # fmt: skip
def test_necks_of_every_convention_are_built_and_run(scope, backbone, neck, filled, channels):
    model = matched(scope, backbone=EYETOY | backbone, neck=neck)
    assert model.neck.in_channels == filled
    init_default_scope(scope)
    maps = MODELS.build(model.neck)(MODELS.build(model.backbone)(torch.zeros(1, 3, 64, 64)))
    assert [x.shape[1] for x in maps] == channels


@pytest.mark.parametrize(
    ("scope", "key", "neck"),
    [
        ("mmdet", "model.neck", {key: x for key, x in YOLO.items() if key != "in_channels"}),
        ("mmdet", "model.neck", YOLO | dict(in_channels=None)),
        (
            "mmpretrain",
            r"model.neck\[1\]",
            [dict(type="GlobalAveragePooling"), dict(type="LinearNeck", out_channels=8)],
        ),
    ],
)
def test_other_necks_are_asked_for_their_channels(scope, key, neck):
    with pytest.raises(UserError, match=rf"{key}.in_channels has to be given: which maps a \w+Neck takes is not known"):
        matched(scope, backbone=EYETOY | dict(out_indices=[1, 2, 3]), neck=neck)


@pytest.mark.parametrize(
    ("scope", "model"),
    [
        ("mmdet", dict(panoptic_head=dict(type="Mask2FormerHead"))),
        ("mmseg", dict(decode_head=dict(type="Mask2FormerHead"))),
        ("mmdet", dict(decode_head=dict(type="mmseg.UPerHead", in_index=[0, 1, 2, 3]))),
        ("mmdet", dict(detector=dict(backbone=EYETOY, neck=dict(type="FPN", out_channels=8, num_outs=5)))),
    ],
)
def test_heads_of_every_map_parts_of_other_toolboxes_and_nested_detectors(scope, model):
    def part(config):
        inner = config.get("detector", config)
        return next(inner[key] for key in ("neck", "panoptic_head", "decode_head") if key in inner)

    assert part(matched(scope, backbone=EYETOY, **model)).in_channels == [32, 64, 128, 192]
    part(model)["in_channels"] = [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"in_channels=\[1, 2, 3, 4\] should be \[32, 64, 128, 192\]"):
        matched(scope, backbone=EYETOY, **model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(decode_head=dict(type="FCNHead", in_index="x")), "decode_head.in_index='x' should be of the maps 0 to 3"),
        (dict(decode_head=dict(type="FCNHead", in_index=[1.5])), r"decode_head.in_index=\[1.5\] should be of the maps"),
        (dict(decode_head=dict(type="FCNHead", in_channels="192")), "decode_head.in_channels='192' should be 192"),
        (dict(auxiliary_head=[None]), r"model.auxiliary_head\[0\]=None should be a dict"),
        (dict(neck=dict(type="FPN", in_channels=256)), r"in_channels=256 should be \[32, 64, 128, 192\]"),
    ],
)
def test_values_of_another_type_are_named(model, message):
    with pytest.raises(UserError, match=message):
        matched("mmseg", backbone=EYETOY, **model)


def test_a_child_with_another_size_is_told_every_key_and_runs_with_none(tmp_path):
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    child = tmp_path / "child.py"
    base = '_base_ = "eyetoy_mm::upernet_eyetoy_ade20k.py"\nmodel = dict(backbone=dict(arch={}){})\n'
    for arch in ('"small"', 'dict(type="small")'):
        child.write_text(base.format(arch, ""))
        with pytest.raises(UserError) as caught:
            load_config(child)
        assert "model.decode_head.in_channels=[64, 128, 384, 576] should be [64, 128, 384, 640]" in str(caught.value)
        assert "a base config" in str(caught.value) and "auxiliary_head" not in str(caught.value)
        child.write_text(base.format(arch, ", decode_head=dict(in_channels=None)"))
        assert load_config(child).model.decode_head.in_channels == [64, 128, 384, 640]


def test_heads_without_in_index_take_the_last_map_and_lists_are_looked_into():
    heads = [dict(type="FCNHead", in_index=1), dict(type="FCNHead")]
    model = matched("mmseg", backbone=EYETOY, auxiliary_head=heads)
    assert [head.in_channels for head in model.auxiliary_head] == [64, 192]
    with pytest.raises(UserError, match=r"model.auxiliary_head\[1\].in_index=4 should be of the maps 0 to 3"):
        matched("mmseg", backbone=EYETOY, auxiliary_head=[dict(type="FCNHead"), dict(type="FCNHead", in_index=4)])


def test_other_backbones_and_parts_are_left_alone():
    resnet = dict(type="ResNet", depth=50)
    head = dict(type="LinearClsHead", num_classes=3, in_channels=7)
    assert matched("mmpretrain", backbone=resnet, head=head) == dict(backbone=resnet, head=head)
    assert matched("mmseg", decode_head=head) == dict(decode_head=head)
    labels = dict(type="ClsHead")  # it has no layers
    assert matched("mmpretrain", backbone=EYETOY, head=labels).head == labels


def test_a_backbone_that_cannot_be_is_told_before_anything_is_built():
    with pytest.raises(UserError, match="model.backbone: EyeToy cannot be built with arch='huge': unknown arch 'huge'"):
        matched("mmseg", backbone=EYETOY | dict(arch="huge"))
    with pytest.raises(UserError, match="model.backbone.depth=3: NAT takes no depth; did you mean depths"):
        matched("mmdet", backbone=NAT | dict(depth=3))
