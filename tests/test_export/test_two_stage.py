"""Two-stage detectors: what leaves PyTorch against what mmdet finds, in eager mode and from a file."""

import copy
import math
import os
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("mmdet", reason="mmdet is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from mmengine.registry import MODELS, init_default_scope  # noqa: E402

from eyetoy_mm.engine.config import load_config  # noqa: E402
from eyetoy_mm.engine.inference import open_predictor  # noqa: E402
from eyetoy_mm.errors import UserError  # noqa: E402
from eyetoy_mm.export import checking  # noqa: E402
from eyetoy_mm.export.boxes import matched, suppress  # noqa: E402
from eyetoy_mm.export.models import Agreement, ExportModel, make_export_model  # noqa: E402
from eyetoy_mm.export.onnx_file import build_file, check_and_write  # noqa: E402
from eyetoy_mm.export.onnx_graph import build_graph  # noqa: E402
from eyetoy_mm.export.pasting import paste  # noqa: E402
from eyetoy_mm.export.pt2_file import build_program  # noqa: E402
from eyetoy_mm.export.two_stage import pool_regions  # noqa: E402

CONFIG = """
default_scope = "mmdet"
custom_imports = dict(imports=["eyetoy_mm"])
stages = {stages}
coders = [dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1 / n, 0.1 / n, 0.2 / n, 0.2 / n])
          for n in (1, 2)]
heads = [dict(type="Shared2FCBBoxHead", in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=3,
              bbox_coder=coder) for coder in coders]
extractor = dict(type="SingleRoIExtractor", out_channels=16, featmap_strides=[8, 16], finest_scale=16)
masks = dict(
    mask_roi_extractor=dict(**extractor, roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0)),
    mask_head=dict(type="FCNMaskHead", num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3),
)
cascade = dict(type="CascadeRoIHead", num_stages=2, stage_loss_weights=[1, 0.5], bbox_head=heads)
model = dict(
    type="TwoStageDetector",
    train_cfg=None,
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_size_divisor=16),
    backbone=dict(
        type="eyetoy_mm.EyeToy", out_indices=(0, 1),
        arch=dict(embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 2), windows=((3,), (3,)), merging=((1,), (1,)),
                  stem_channels=8)),
    neck=dict(type="FPN", in_channels=[8, 16], out_channels=16, num_outs=3),
    rpn_head=dict(
        type="RPNHead", in_channels=16, feat_channels=16,
        anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)),
    roi_head=dict(
        **(cascade if stages == 2 else dict(type="StandardRoIHead", bbox_head=heads[0])),
        bbox_roi_extractor=dict(**extractor, roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
        **(masks if {with_masks} else {{}})),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.4, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50, mask_thr_binary=0.5)),
)
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackDetInputs")]
"""
LIVELY = {"fc_cls": 0.5, "fc_reg": 0.05, "rpn_cls": 0.1, "rpn_reg": 0.05, "conv_logits": 0.5}  # deviations


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Open a detector whose weights make it find boxes of several classes; with its config."""
    folder = tmp_path_factory.mktemp("model")

    def open_one(stages, with_masks, **options):
        (folder / "config.py").write_text(CONFIG.format(stages=stages, with_masks=with_masks))
        config = load_config(folder / "config.py", options=options)
        init_default_scope("mmdet")
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(config.model))
        generator = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            *_, layer, kind = name.split(".")
            if layer in LIVELY and kind == "weight":
                weight.data.copy_(torch.randn(weight.shape, generator=generator) * LIVELY[layer])
        meta = dict(dataset_meta=dict(classes=("cat", "dog", "toy")))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / "model.pth")
        return open_predictor(config, str(folder / "model.pth"), "cpu"), config

    return open_one


def photo(height, width):
    """Coarse shapes, as an image ``(1, 3, height, width)``."""
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(height))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") * 255


@pytest.mark.parametrize(("stages", "with_masks"), [(1, False), (1, True), (2, True)])
def test_what_is_exported_is_mmdets_detector(opened, stages, with_masks):
    most = {"model.test_cfg.rcnn.max_per_img": -1} if not with_masks else {}  # all
    predictor = opened(stages, with_masks, **{"model.test_cfg.rcnn.score_thr": 0.25}, **most)[0]
    model = make_export_model(predictor, "mmdet", "whole")
    assert list(model.outputs) == ["boxes", "scores", "labels"] + ["masks"] * with_masks
    for size in ((64, 64), (61, 133)):
        images = photo(*size)
        with torch.no_grad():
            outputs = model(images)
        assert len(outputs[0]) == len(model.predict(images)) > 10 and len(outputs[2].unique()) > 1
        assert model.compare(images, outputs).holds
        outputs[0][:2] += 1  # pixel
        assert not model.compare(images, outputs).holds
    if with_masks:
        outputs[0][:2] -= 1
        outputs[3][:4] = 1 - outputs[3][:4]
        assert not model.compare(images, outputs).holds


@pytest.mark.parametrize("stages", [1, 2])
def test_mask_heads_get_a_box_where_nothing_is_found(opened, stages):
    """onnxruntime fails on a GroupNorm of none; PyTorch does not."""
    predictor = opened(stages, True, **{"model.test_cfg.rcnn.score_thr": 1.0})[0]
    model, seen = make_export_model(predictor, "mmdet", "whole"), []
    for module in model.modules():
        if type(module).__name__ == "FCNMaskHead":
            module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        assert [tuple(output.shape) for output in model(photo(40, 30))] == [(0, 4), (0,), (0,), (0, 28, 28)]
    assert seen == [1] * stages


@pytest.mark.parametrize("stages", [1, 2])
def test_box_heads_get_a_box_where_nothing_is_proposed(opened, stages):
    predictor = opened(stages, True, **{"model.test_cfg.rpn.min_bbox_size": 1000})[0]
    model, seen, images = make_export_model(predictor, "mmdet", "whole"), [], photo(40, 30)
    for module in model.modules():
        if type(module).__name__ == "Shared2FCBBoxHead":
            module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        outputs = model(images)
    assert [tuple(output.shape) for output in outputs] == [(0, 4), (0,), (0,), (0, 28, 28)]
    assert seen == [1] * stages and model.compare(images, outputs).holds


class Bright(ExportModel):
    """Finds the values above ``least``, and describes each by four features; at least ``rows`` of them."""

    outputs = {"scores": "(n,)", "features": "(n, 4)"}
    any_batch = False
    least_score = "least"

    def __init__(self, norm, rows=0):
        torch.nn.Module.__init__(self)
        self.norm, self.rows, self.remarks = norm, rows, []
        self.register_buffer("least", torch.tensor(100.0))

    def forward(self, images):
        scores = images.flatten()
        scores = scores[(scores > self.least).nonzero()[:, 0]]
        features = torch.cat([scores, scores.new_ones(1)])[: torch.sym_max(scores.shape[0], self.rows)]
        return scores, self.norm(features[:, None].expand(-1, 4))

    @contextmanager
    def finding_nothing(self):
        self.least.fill_(math.inf)
        yield

    def compare(self, images, outputs):
        count = int((images > self.least).sum())
        return Agreement([len(output) for output in outputs] == [count] * 2, f"{count} values")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Bright(torch.nn.Identity()), None),
        (
            Bright(torch.nn.Identity(), rows=1),
            "is not the model, .* for an image in which nothing is found it gives 0",
        ),
        (
            Bright(torch.nn.GroupNorm(2, 4)),
            "does not run for an image in which nothing is found, and no file",
        ),
    ],
    ids=["right", "wrong", "dies"],
)
def test_every_file_is_checked_where_nothing_is_found(model, message, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "CHECKED", ((1, 6, 5), (1, 4, 9)))
    content = build_graph(model.eval(), list(model.outputs), any_batch=False).SerializeToString()
    report = check_and_write(None, model, content, tmp_path / "model.onnx")
    for size in ("6 x 5", "4 x 9"):
        assert size in next(line for line in report if line.startswith("checked"))
    if message is None:
        assert next(report) == "checked an image in which nothing is found: 0 values"
    else:
        with pytest.raises(UserError, match=message):
            next(report)
    assert not list(tmp_path.iterdir())


def test_a_detector_finds_nothing_while_that_is_checked(opened):
    model = make_export_model(opened(1, True)[0], "mmdet", "whole")
    images = photo(64, 64)
    with torch.no_grad():
        outputs = list(model(images))
    with model.finding_nothing():
        assert not len(model.predict(images)) and not model.compare(images, outputs).holds
        empty = [output[:0] for output in outputs]
        assert model.compare(images, empty) == Agreement(True, "no boxes, as by mmdet")
        assert not model.compare(images, [*empty[:3], outputs[3][:1]]).holds
    assert model.compare(images, outputs).holds


def test_a_program_of_torch_export_takes_any_number_of_boxes():
    class Kept(torch.nn.Module):
        any_batch = False

        def forward(self, images):
            boxes = images[0].permute(1, 2, 0).flatten(0, 1).unflatten(0, (-1, 2)).flatten(1)[:, :4]
            boxes = boxes[(boxes[:, 0] > 0).nonzero()[:, 0]]
            return (suppress(boxes, boxes[:, 0], boxes[:, 1] * 0, dict(iou_threshold=0.5)),)

    program = build_program(Kept(), (2, 4)).module()
    for count in range(4):
        images = torch.zeros(4, 6)
        images[:count, :4] = torch.tensor([1.0, 0.0, 2.0, 1.0]) + 2 * torch.arange(count)[:, None]
        assert len(program(images.view(8, 3).T.view(1, 3, 2, 4))[0]) == count


@pytest.mark.slow
@pytest.mark.skipif("EYETOY_LONG_TESTS" not in os.environ, reason="takes a minute: EYETOY_LONG_TESTS=1 runs it")
def test_one_file_serves_every_size_and_images_in_which_nothing_is(opened, tmp_path):
    predictor, config = opened(2, True, **{"model.roi_head.mask_head.norm_cfg": dict(type="GN", num_groups=4)})
    model, content = build_file(predictor, config, "whole", None)
    report = "\n".join(check_and_write(predictor, model, content, tmp_path / "model.onnx"))
    assert report.count("boxes of") == 5 and "masks (" in report and "def paste(" in report
    session = runtime.InferenceSession(content)
    grey = (torch.full((1, 3, 40, 30), float(value)) for value in range(256))
    with torch.no_grad():
        empty = next(images for images in grey if not len(model(images)[0]))
    assert [len(output) for output in session.run(None, {"images": empty.numpy()})] == [0] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.test_cfg.rcnn.nms.type": "soft_nms"}, "nms of type 'soft_nms'"),
        ({"model.rpn_head.bbox_coder.add_ctr_clamp": True}, "boxes whose centres are clamped"),
        ({"model.roi_head.bbox_roi_extractor.roi_layer.pool_mode": "max"}, "RoIAlign that averages"),
        ({"model.roi_head.type": "DynamicRoIHead"}, "this model, TwoStageDetector, is not exported whole"),
    ],
)
def test_what_is_not_exported_is_told(opened, options, message):
    if "model.roi_head.type" in options:
        predictor = opened(1, False)[0]
        predictor.model.roi_head = torch.nn.Module()
    else:
        predictor = opened(1, False, **options)[0]
    with pytest.raises(UserError, match=f"{message}.*--part backbone"):
        make_export_model(predictor, "mmdet", "whole")


def test_a_file_is_not_right_where_nothing_was_found(opened):
    model = make_export_model(opened(1, False, **{"model.test_cfg.rcnn.score_thr": 0.999})[0], "mmdet", "whole")
    with torch.no_grad():
        images = photo(64, 64)
        assert model.compare(images, model(images)).holds
    with pytest.raises(UserError, match="no box was found in any image.*--image PHOTO"):
        model.conclude()


def test_regions_are_those_of_mmdets_extractor():
    from mmdet.models.roi_heads import SingleRoIExtractor

    layer = dict(type="RoIAlign", output_size=7, sampling_ratio=0)
    extractor = SingleRoIExtractor(layer, 4, [4, 8, 16], finest_scale=16)
    maps = [torch.randn(1, 4, 32 // n, 48 // n) for n in (1, 2, 4)]
    corners = torch.rand(50, 2) * torch.tensor([150.0, 100.0])
    boxes = torch.cat([corners, corners + torch.rand(50, 2) * 100], dim=1)
    for chosen in (boxes, boxes[:1], boxes[:0]):
        regions = torch.cat([torch.zeros(len(chosen), 1), chosen], dim=1)
        torch.testing.assert_close(pool_regions(extractor, maps, chosen), extractor(maps, regions), atol=0, rtol=0)


def test_masks_are_pasted_as_mmdet_does():
    from mmdet.models.roi_heads import FCNMaskHead
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[3.2, 4.7, 20.1, 9.9], [-4.0, 10.5, 60.0, 45.0], [7.0, 7.0, 7.6, 40.0]])
    masks = torch.rand(3, 28, 28)
    head = FCNMaskHead(num_convs=0, num_classes=1, in_channels=4, conv_out_channels=4)
    found = InstanceData(bboxes=boxes.clone(), labels=torch.zeros(3, dtype=torch.long))
    meta = dict(ori_shape=(50, 40), scale_factor=(1.0, 1.0))
    rules = dict(mask_thr_binary=0.5)
    from mmengine.config import ConfigDict

    logits = masks.logit()[:, None]
    (found,) = head.predict_by_feat([logits], [found], [meta], ConfigDict(rules), rescale=True)
    for mask, box, right in zip(masks.numpy(), boxes.numpy(), found.masks.numpy(), strict=True):
        assert ((paste(mask, box, 50, 40) >= 0.5) != right).sum() <= 1 and right.any()


def test_boxes_are_matched_one_to_one_in_class():
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    expected = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.9]), labels=torch.tensor([0, 1]))
    agreement, pairs = matched(expected, (boxes, expected.scores, torch.tensor([1, 0])))
    assert agreement.holds and pairs == [(0, 1), (1, 0)]
    assert not matched(expected, (boxes, expected.scores, torch.tensor([1, 1])))[0].holds
    assert not matched(expected, (boxes[:1], expected.scores[:1], expected.labels[:1]))[0].holds
