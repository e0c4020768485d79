"""Places of a config that disagree on how images are prepared, and odd images: what is said about each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build
from eyetoy_mm.engine.evaluation_report import check_can_report
from eyetoy_mm.engine.image_sources import FrameReader, find_sources
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.inference_run import Settings, infer
from eyetoy_mm.engine.predictions import class_numbers
from eyetoy_mm.engine.preprocessing import Preprocessing
from eyetoy_mm.paths import package_file

_DEMO = package_file("configs/sample/upernet_eyetoy-demo_sample.py")


def _changed(folder: Path, text: str) -> Path:
    """The demo's config with something after it."""
    config = folder / "config.py"
    config.write_text(f'_base_ = "{_DEMO}"\n{text}\n')
    return config


def _remarks(folder: Path, text: str) -> str:
    """What is said when a changed config is loaded."""
    said: list[str] = []
    logger = MMLogger.get_current_instance()

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False

    logger.addFilter(keep)
    try:
        load_config(_changed(folder, text))
    finally:
        logger.removeFilter(keep)
    return "\n".join(said)


def another_pipeline_for_inference(folder: Path) -> str:
    """Inference by test_pipeline resized otherwise than what was measured: up to 11 % of the labels differed."""
    return _remarks(
        folder,
        'test_pipeline = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(100, 75)), '
        'dict(type="PackSegInputs")]',
    )


def data_preprocessor_at_the_top(folder: Path) -> str:
    """The Runner takes the model's, without a word."""
    return _remarks(folder, "data_preprocessor = dict(mean=[0.0, 0.0, 0.0])")


def channels_not_swapped(folder: Path) -> str:
    """ImageNet's means for red, green, blue on images that come as blue, green, red."""
    return _remarks(folder, "model = dict(data_preprocessor=dict(bgr_to_rgb=False))")


def normalised_in_training_alone(folder: Path) -> None:
    """A pipeline that normalises for training, and one that does not for testing."""
    load_config(
        _changed(
            folder,
            "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='Normalize', "
            "mean=[0, 0, 0], std=[255, 255, 255]), dict(type='PackSegInputs')]))",
        )
    )


def grey_in_training_alone(folder: Path) -> None:
    """A model that learns from grey images, and is tested on colour."""
    load_config(
        _changed(
            folder,
            "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'), "
            "dict(type='PackSegInputs')]))",
        )
    )


def one_channel_model_on_colour(folder: Path) -> None:
    """A backbone for one channel, and a pipeline that loads three."""
    load_config(_changed(folder, "model = dict(backbone=dict(in_channels=1))"))


def odd_images(folder: Path) -> None:
    """A folder with one good image, and some that are none or have a side of a few pixels."""
    config = load_config(_DEMO)
    init_default_scope(config.default_scope)
    checkpoint = folder / "untrained.pth"
    torch.save({"state_dict": build(config).state_dict(), "meta": {}}, checkpoint)
    paths = write_odd_images(folder)
    list(infer(open_predictor(config, str(checkpoint), "cpu"), find_sources(paths), Settings(folder / "painted")))


def write_odd_images(folder: Path) -> list[Path]:
    """Images of every kind that people have in a folder, good ones among them; sorted by name."""
    generator = np.random.default_rng(0)
    shapes = {"1 x 1": (1, 1, 3), "2000 x 3": (3, 2000, 3), "good": (40, 60, 3), "grey": (40, 60), "rgba": (40, 60, 4)}
    for name, shape in shapes.items():
        cv2.imwrite(str(folder / f"{name}.png"), generator.integers(0, 256, shape, dtype=np.uint8))
    cv2.imwrite(str(folder / "16 bit.png"), generator.integers(0, 65536, (40, 60, 3), dtype=np.uint16))
    (folder / "cut short.png").write_bytes((folder / "good.png").read_bytes()[:300])
    (folder / "no image.png").write_text("text")
    (folder / "empty.png").touch()
    return sorted(folder.glob("*.png"))


def class_that_is_none(folder: Path) -> None:
    """`eyetoy infer --classes` with a name that the model does not have."""
    class_numbers(["dgo"], ("cat", "dog"))


def _first_frame(folder: Path, name: str) -> None:
    config = load_config(_DEMO)
    init_default_scope(config.default_scope)
    reader = FrameReader(Preprocessing(config), folder)
    for frame in reader.of(find_sources([name])[0]):
        frame.load()


def no_camera(folder: Path) -> None:
    """A camera where there is none."""
    _first_frame(folder, "97")


def no_server(folder: Path) -> None:
    """An address at which nobody answers."""
    _first_frame(folder, "http://127.0.0.1:9/photo.jpg")


def broken_video(folder: Path) -> None:
    """A file that is called a video."""
    (folder / "clip.mp4").write_text("text")
    _first_frame(folder, str(folder / "clip.mp4"))


def voc_in_numbers(folder: Path) -> None:
    """`eyetoy test --json` of a detector that is evaluated otherwise than by COCO's metric."""
    check_can_report(Config(dict(default_scope="mmdet", test_evaluator=dict(type="VOCMetric"))))


CASES: dict[str, Callable[[Path], object]] = {
    "inference's pipeline is not the test loader's": another_pipeline_for_inference,
    "two data preprocessors": data_preprocessor_at_the_top,
    "channels in another order than the means": channels_not_swapped,
    "normalised in training alone": normalised_in_training_alone,
    "grey in training alone": grey_in_training_alone,
    "a one-channel model on colour images": one_channel_model_on_colour,
    "odd images in a folder": odd_images,
    "--classes that the model does not have": class_that_is_none,
    "a camera that is not there": no_camera,
    "an address that does not answer": no_server,
    "a video that is none": broken_video,
    "--json of a detector without COCO's metric": voc_in_numbers,
}
