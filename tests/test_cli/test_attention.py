"""The picture of the attention: for each toolbox, where the position lies, and what is refused."""

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
from mmengine.registry import MODELS, init_default_scope

from eyetoy_mm.cli import main
from eyetoy_mm.engine.attention_picture import picture_attention
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.preprocessing import read_image
from eyetoy_mm.errors import UserError
from tests.test_cli.test_cli import CLASSIFIER, DETECTOR

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "data/sample/images/validation/000000208901.jpg"  # 320 x 214

# A photo of 320 x 214 becomes 96 x 64, of which the middle 48 x 48 are seen.
CROPPED = CLASSIFIER.replace(
    'dict(type="Resize", scale=64)', 'dict(type="ResizeEdge", scale=64), dict(type="CenterCrop", crop_size=48)'
)
SEGMENTOR = f"""
_base_ = "{ROOT}/configs/sample/upernet_eyetoy-demo_sample.py"
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(160, 107)), dict(type="PackSegInputs")]))
"""
SMALL_DETECTOR = (
    DETECTOR
    + """
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(160, 107)), dict(type="PackDetInputs")]))
"""
)
CONFIGS = {"mmseg": SEGMENTOR, "mmdet": SMALL_DETECTOR, "mmpretrain": CROPPED}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Config and checkpoint of an untrained model."""

    @functools.cache
    def make(toolbox: str, extra: str = "") -> tuple[Path, Path]:
        pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")
        folder = tmp_path_factory.mktemp(toolbox)
        config, checkpoint = folder / "config.py", folder / "untrained.pth"
        config.write_text(CONFIGS[toolbox] + extra)
        loaded = load_config(config)
        init_default_scope(loaded.default_scope)
        model = MODELS.build(loaded.model)
        classes = tuple(f"class {i}" for i in range(80))
        torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": classes}}}, checkpoint)
        return config, checkpoint

    return make


def show(*arguments) -> None:
    main(["attention", *map(str, arguments)])


def titles(figure) -> list[str]:
    return [panel.get_title().splitlines()[0] for panel in figure.axes if panel.get_title()]


@pytest.mark.parametrize("toolbox", CONFIGS)
def test_position_lies_where_the_pipeline_puts_it(untrained, toolbox):
    config, checkpoint = untrained(toolbox)
    predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    figure = picture_attention(predictor, read_image(PHOTO), (200, 107), tokens=3)
    groups = ["merging 1, window 17", "merging 2, window 13", "merging 4, window 11", "merging 8, window 9"]
    assert titles(figure) == [*groups, "context", "register 0", "register 1"]
    x, y = figure.axes[0].lines[0].get_xydata()[0]
    scale, left, top = (0.3, 24, 8) if toolbox == "mmpretrain" else (0.5, 0, 0)
    assert abs(x - (200.5 * scale - left)) <= 1 and abs(y - (107.5 * scale - top)) <= 1
    if toolbox == "mmpretrain":
        with pytest.raises(UserError, match="position 20,107 is cropped away"):
            picture_attention(predictor, read_image(PHOTO), (20, 107))


def test_tool_writes_a_picture(untrained, tmp_path, monkeypatch, capsys):
    config, checkpoint = untrained("mmseg")
    target = tmp_path / "new" / "attention.png"
    show(config, checkpoint, PHOTO, "--position", "100,50", "--block", 4, "--out", target)
    picture = cv2.imread(str(target))
    assert picture.shape[1] == 4 * 300 and np.ptp(picture) > 200
    assert f"{PHOTO} -> {target}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    show(config, checkpoint, PHOTO, "--position", "160,107", "--block", 4, "--out", "middle.png")
    show(config, checkpoint, PHOTO, "--block", 4)
    assert (cv2.imread("attention.png") == cv2.imread("middle.png")).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--position": "320,0"}, "position 320,0 lies outside the image of 320 x 214 pixels"),
        ({"--position": "100"}, "--position must be X,Y, the column and row of a pixel, got '100'"),
        ({"--block": "5"}, "there is no block 5: the encoder has blocks 0 to 4"),
        ({"--tokens": "-1"}, "the number of tokens must be at least 0, got -1"),
        ({"--out": "attention.what"}, "--out attention.what must end in one of .*.png"),
        ({"--cfg-options": "model.test_cfg.mode=slide"}, "ran more than once"),
    ],
)
def test_refusals(untrained, tmp_path, changed, message):
    slide = "\nmodel = dict(test_cfg=dict(crop_size=(96, 96), stride=(64, 64)))\n"
    config, checkpoint = untrained("mmseg", slide)
    options = {"--position": "10,10", "--out": tmp_path / "a.png"} | changed
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        show(config, checkpoint, PHOTO, *(part for option in options.items() for part in option))
    assert not any(tmp_path.iterdir())


NO_GLOBAL_STACK = """
model = dict(backbone=dict(arch=dict(_delete_=True, type="demo", global_layers=0)))
"""
NO_ENCODER = """
model = dict(backbone=dict(_delete_=True, type="ResNet", depth=18), decode_head=dict(in_channels=[64, 128, 256, 512]),
             auxiliary_head=dict(in_channels=256))
"""


def test_models_without_encoder_or_global_stack(untrained, tmp_path):
    arguments = [PHOTO, "--position", "10,10", "--out", tmp_path / "a.png"]
    with pytest.raises(SystemExit, match="^error: EncoderDecoder has no EyeToy encoder"):
        show(*untrained("mmseg", NO_ENCODER), *arguments)
    with pytest.raises(SystemExit, match="^error: the encoder has no global stack.* with --tokens 0$"):
        show(*untrained("mmseg", NO_GLOBAL_STACK), *arguments)
    assert not any(tmp_path.iterdir())
    show(*untrained("mmseg", NO_GLOBAL_STACK), *arguments, "--tokens", 0)
    assert (tmp_path / "a.png").is_file()
