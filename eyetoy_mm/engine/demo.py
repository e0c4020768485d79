"""The demo: UperNet with EyeToy trained on the embedded photos, evaluated before and after, and painted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import Predictor, open_predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

CONFIG = "configs/sample/upernet_eyetoy-demo_sample.py"
SAMPLE = package_file("data/sample")
SHOWN = ("000000005001", "000000183709", "000000311303", "000000519208")  # validation photos that are painted


def demo(work_dir: Path, short: bool = False) -> None:
    """Train, compare, paint; the last lines that it prints say what was reached and where it is.

    Args:
        work_dir: Folder for everything that is written.
        short: Train for a fraction of the iterations.

    Raises:
        UserError: Training failed, or the model did not learn.
    """
    start = time.perf_counter()
    print(f"Training {CONFIG} on {SAMPLE}; the whole log is in {work_dir}", flush=True)
    train(work_dir, ["train_cfg.max_iters=60", "train_cfg.val_interval=60"] if short else [])
    before, after = evaluations(work_dir)
    checkpoint = work_dir / (work_dir / "last_checkpoint").read_text().strip()
    predictor = open_predictor(load_config(package_file(CONFIG)), str(checkpoint))
    picture = work_dir / "overlay.png"
    paint(predictor, picture)

    print(f"\nDone in {time.perf_counter() - start:.0f} s on {torch.get_num_threads()} threads.")
    print(f"checkpoint      {os.path.relpath(checkpoint)}")
    print(f"overlay         {picture}  (photo | ground truth | prediction)")
    for name, key in (("mIoU", "mIoU"), ("pixel accuracy", "aAcc")):
        print(f"{name:15s} {before[key]:5.1f} % untrained -> {after[key]:5.1f} % trained, on the validation photos")
    if not (after["mIoU"] > 2 * before["mIoU"] and after["aAcc"] > before["aAcc"] + 10):
        raise UserError("the model did not learn: mIoU should double and pixel accuracy rise by 10 points")
    print("mIoU and pixel accuracy rose clearly: the model learned.")


def train(work_dir: Path, options: list[str]) -> None:
    """Run the verb ``train`` and pass on the lines that show its progress.

    Raises:
        UserError: It failed; the message has the last lines of its output.
    """
    command = [sys.executable, "-m", "eyetoy_mm.cli", "train", package_file(CONFIG)]
    command += ["--work-dir", work_dir, "--data-root", SAMPLE]
    if options:
        command += ["--cfg-options", *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    tail: list[str] = []
    for line in process.stdout:
        tail = [*tail[-20:], line]
        if "Iter(" in line or "Saving checkpoint" in line:
            print(line.split("INFO - ")[-1].split("decode.loss_ce")[0].rstrip(), flush=True)
    if process.wait():
        raise UserError(f"training failed:\n{''.join(tail)}")


def evaluations(work_dir: Path) -> tuple[dict, dict]:
    """The first and the last evaluation in the newest log: before the first iteration, and after the last."""
    log = max(work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    records = [record for record in records if "mIoU" in record]
    return records[0], records[-1]


def paint(predictor: Predictor, target: Path) -> None:
    """One row per photo: the photo, the ground truth over it, the prediction over it."""
    rows = []
    for name in SHOWN:
        image = predictor.read(SAMPLE / f"images/validation/{name}.jpg")
        labels = mmcv.imread(str(SAMPLE / f"annotations/validation/{name}.png"), flag="unchanged")
        truth = torch.from_numpy(labels.astype(np.int64) - 1)[None]  # label 0 is ignored, 1 is the first class
        truth[truth < 0] = 255
        truth_sample = SegDataSample(pred_sem_seg=PixelData(data=truth))
        panels = [
            mmcv.bgr2rgb(image),
            predictor.paint(image, truth_sample),
            predictor.paint(image, predictor.predict(image)),
        ]
        rows.append(np.hstack(panels))
    width = max(row.shape[1] for row in rows)
    rows = [mmcv.impad(row, shape=(row.shape[0], width), pad_val=(255, 255, 255)) for row in rows]
    mmcv.imwrite(mmcv.rgb2bgr(np.vstack(rows)), str(target))
