"""The demos: models with EyeToy trained on the embedded nuclei from nothing, evaluated, and painted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch

from eyetoy_mm.engine.children import ended
from eyetoy_mm.engine.colors import distinct_colors
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import Predictor, open_predictor
from eyetoy_mm.engine.measuring import usable_cores
from eyetoy_mm.errors import UserError, counted
from eyetoy_mm.paths import package_file

SAMPLE = package_file("data/nuclei")
SHOWN = ("317832f90f02c5e9", "0ea221716cf13710", "08151b19806eebd5", "0c2550a23b8a0f29")  # validation images


@dataclass(frozen=True)
class Demo:
    """A model to train, and how to tell that it learned.

    Attributes:
        config: Its config, trained and evaluated as it is.
        metrics: Names of the figures that are shown, with their keys in the log.
        unit: What the log's figures are multiplied by for per cent.
        learned: The least value of the first figure, per cent, after the whole training.
        short: Options for a fraction of the training, and the least value after it.
        panels: Paints an image, its ground truth and what is predicted.
        processes: How many train together on CPUs: detectors are full of small steps that two threads do not share.
    """

    config: str
    metrics: tuple[tuple[str, str], ...]
    unit: float
    learned: float
    short: tuple[list[str], float]
    panels: Callable[[Predictor, str], list[np.ndarray]]
    processes: int = 1


def run_demo(task: str, work_dir: Path, short: bool = False) -> None:
    """Train, evaluate, paint; the last lines that it prints say what was reached and where it is.

    Args:
        task: A key of :data:`DEMOS`.
        work_dir: Folder for everything that is written.
        short: Train for a fraction of the iterations.

    Raises:
        UserError: Training failed, or the model did not learn.
    """
    demo = DEMOS[task]
    start = time.perf_counter()
    print(f"Training {demo.config} on {SAMPLE}; the whole log is in {work_dir}", flush=True)
    options, least = demo.short if short else ([], demo.learned)
    train(demo, work_dir, options)
    evaluations = read_evaluations(demo, work_dir)
    checkpoint = work_dir / (work_dir / "last_checkpoint").read_text().strip()
    picture = work_dir / "overlay.png"
    predictor = open_predictor(load_config(package_file(demo.config)), str(checkpoint))
    mmcv.imwrite(mmcv.rgb2bgr(np.vstack([_row(demo.panels(predictor, name)) for name in SHOWN])), str(picture))

    print(f"\nDone in {time.perf_counter() - start:.0f} s on {counted(torch.get_num_threads(), 'thread')}.")
    print(f"checkpoint      {os.path.relpath(checkpoint)}")
    print(f"overlay         {picture}  (image | ground truth | prediction)")
    for name, key in demo.metrics:
        before = f"{evaluations[0][key] * demo.unit:5.1f} % untrained -> " if len(evaluations) > 1 else ""
        print(f"{name:15s} {before}{evaluations[-1][key] * demo.unit:5.1f} % trained, on the validation images")
    name, key = demo.metrics[0]
    if not evaluations[-1][key] * demo.unit >= least:
        raise UserError(f"the model did not learn: {name} should reach {least:g} %")
    print("The model learned.")


def train(demo: Demo, work_dir: Path, options: list[str]) -> None:
    """Run the verb ``train`` and pass on the lines that show its progress.

    Raises:
        UserError: It failed; the message has the last lines of its output.
    """
    command = [sys.executable, "-m", "eyetoy_mm.cli", "train", package_file(demo.config)]
    command += ["--work-dir", work_dir, "--data-root", SAMPLE]
    processes = 1 if torch.accelerator.is_available() else min(demo.processes, usable_cores())
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["--launcher", "pytorch"]
    if options:
        command += ["--cfg-options", *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    tail: list[str] = []
    with ended(process):
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if "Iter(" in line or "Epoch(" in line or "Saving checkpoint" in line:
                shown = line.split("INFO - ")[-1]
                print(shown.split("decode.loss_ce")[0].split("loss_rpn_cls")[0].rstrip(), flush=True)
        process.wait()
    if process.returncode:
        raise UserError(f"training failed:\n{''.join(tail)}")


def read_evaluations(demo: Demo, work_dir: Path) -> list[dict]:
    """The evaluations in the newest log, in their order."""
    log = max(work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record for record in records if demo.metrics[0][1] in record]


def _row(panels: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side, as large as the largest."""
    height, width = max(panel.shape[:2] for panel in panels)
    return np.hstack([cv2.resize(panel, (width, height), interpolation=cv2.INTER_CUBIC) for panel in panels])


def _label_panels(predictor: Predictor, name: str) -> list[np.ndarray]:
    """An image, the true labels over it, the predicted ones."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    image = predictor.read(SAMPLE / f"images/validation/{name}.png")
    labels = mmcv.imread(str(SAMPLE / f"annotations/validation/{name}.png"), flag="unchanged").astype(np.int64)
    truth = SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))
    predicted = predictor.predict(image)
    return [mmcv.bgr2rgb(image), predictor.paint(image, truth), predictor.paint(image, predicted)]


def _instance_panels(predictor: Predictor, name: str) -> list[np.ndarray]:
    """An image, outlines of the true instances over it, those of the predicted ones: names would hide small objects."""
    from pycocotools import mask as mask_utils

    image = predictor.read(SAMPLE / f"images/validation/{name}.png")
    coco = json.loads((SAMPLE / "annotations/instances_val.json").read_text())
    image_id = next(image["id"] for image in coco["images"] if image["file_name"] == f"{name}.png")
    found = [record["segmentation"] for record in coco["annotations"] if record["image_id"] == image_id]
    predicted = predictor.predict(image).pred_instances
    masks = predicted.masks[predicted.scores >= 0.5].cpu().numpy()
    picture = mmcv.bgr2rgb(mmcv.auto_contrast(image))
    return [picture, _outline(picture, [mask_utils.decode(rle) for rle in found]), _outline(picture, list(masks))]


def _outline(picture: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """Outline each mask in a color of its own, twice as large as the picture."""
    large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for mask, color in zip(masks, distinct_colors(len(masks)), strict=True):
        enlarged = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(large, contours, -1, color, thickness=2)
    return large


DEMOS: dict[str, Demo] = {
    "segment": Demo(
        "configs/sample/upernet_eyetoy-demo_nuclei.py",
        (("mIoU", "mIoU"), ("pixel accuracy", "aAcc")),
        1.0,
        75.0,
        (["train_cfg.max_iters=60", "train_cfg.val_interval=60"], 50.0),
        _label_panels,
    ),
    "detect": Demo(
        "configs/sample/mask-rcnn_eyetoy-demo_nuclei.py",
        (("mask AP50", "coco/segm_mAP_50"), ("box AP50", "coco/bbox_mAP_50"), ("mask AP", "coco/segm_mAP")),
        100.0,
        60.0,
        (["train_cfg.max_epochs=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2"], 1.0),
        _instance_panels,
        processes=2,
    ),
}
"""What ``eyetoy demo`` can do: semantic and instance segmentation of cell nuclei."""
