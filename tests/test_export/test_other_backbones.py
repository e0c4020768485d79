"""Models on backbones of the toolboxes: what has no graph for any size has one for one, and says so."""

import copy

import pytest
import torch

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from mmengine.registry import MODELS, init_default_scope

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.checking import check
from eyetoy_mm.export.onnx_file import build_file, check_and_write

CONFIG = """
default_scope = "mmseg"
custom_imports = dict(imports=["eyetoy_mm"])
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        type="SwinTransformer", embed_dims=8, depths=(2,), num_heads=(1,), window_size=4, strides=(4,),
        out_indices=(0,)),
    decode_head=dict(type="FCNHead", in_channels=8, channels=8, num_convs=1, num_classes=3, in_index=0),
    test_cfg=dict(mode="whole"),
)
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
"""


def test_swin_is_exported_for_one_size(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    config = load_config(tmp_path / "config.py")
    init_default_scope("mmseg")
    torch.manual_seed(0)
    state = MODELS.build(copy.deepcopy(config.model)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=tuple("abc")))), tmp_path / "model.pth")
    predictor = open_predictor(config, str(tmp_path / "model.pth"), "cpu")
    with pytest.raises(UserError, match="no graph for any image size: Swin's attention.*--size H,W exports it for one"):
        build_file(predictor, config, "whole", None)
    model, content = build_file(predictor, config, "whole", (36, 50))
    report = "\n".join(check_and_write(predictor, model, content, tmp_path / "model.onnx", (36, 50)))
    assert "images (1, 3, 36, 50)" in report and "checked batch 1 of 36 x 50: 1800 of 1800 labels equal" in report
    assert "One image at a time, of this size: Swin's attention" in report and "batch 2" not in report


def test_images_that_the_model_itself_refuses_are_told_apart_from_files_that_are_wrong():
    def run(images):
        raise ValueError("this runtime does not take it")

    model = torch.nn.Conv2d(3, 1, 8)
    assert check(run, model, torch.zeros(1, 3, 4, 9), "small").startswith("refused, as by the model itself: Calculated")
    with pytest.raises(UserError, match="does not run for large.*does not take it; where sizes .*--size H,W"):
        check(run, model, torch.zeros(1, 3, 9, 9), "large")
    with pytest.raises(UserError, match="does not take it$"):
        check(run, model, torch.zeros(1, 3, 9, 9), "large", (9, 9))
