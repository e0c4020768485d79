"""Train UperNet with EyeToy on the embedded photos, evaluate before and after, and paint what it learned.

Usage::

    python tools/demo.py            # a few minutes on two CPU cores
    python tools/demo.py --short    # a fraction of it, to see that everything works

Everything is done by the tools a user has: this calls tools/train.py and shows its progress.
"""

from __future__ import annotations

import argparse
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
from eyetoy_mm.engine.inference import Predictor, open_predictor, read_image
from eyetoy_mm.errors import UserError, report_user_errors

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs/sample/upernet_eyetoy-demo_sample.py"
SHOWN = ("000000005001", "000000183709", "000000311303", "000000519208")  # validation photos that are painted


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="train for a fraction of the iterations")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"), help="folder for everything it writes")
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Train, compare, paint; the last lines say what was reached and where it is."""
    args = parse_args()
    start = time.perf_counter()
    print(
        f"Training {CONFIG.relative_to(ROOT)} on {ROOT / 'data/sample'}; the whole log is in {args.work_dir}",
        flush=True,
    )
    train(args.work_dir, ["train_cfg.max_iters=60", "train_cfg.val_interval=60"] if args.short else [])
    before, after = evaluations(args.work_dir)
    checkpoint = Path((args.work_dir / "last_checkpoint").read_text().strip())
    predictor = open_predictor(load_config(CONFIG), str(checkpoint))
    picture = args.work_dir / "overlay.png"
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
    """Run tools/train.py and pass on the lines that show its progress.

    Raises:
        UserError: It failed; the message has the last lines of its output.
    """
    command = [
        sys.executable,
        ROOT / "tools/train.py",
        CONFIG,
        "--work-dir",
        work_dir,
        "--data-root",
        ROOT / "data/sample",
    ]
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
        image = read_image(ROOT / f"data/sample/images/validation/{name}.jpg")
        labels = mmcv.imread(str(ROOT / f"data/sample/annotations/validation/{name}.png"), flag="unchanged")
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


if __name__ == "__main__":
    main()
