"""Paint the predictions of a trained model over images: classification, detection or segmentation.

Example::

    eyetoy infer CONFIG CHECKPOINT photo.jpg folder/*.jpg --out painted

Images are prepared as `eyetoy test` does, by the pipeline of the config's test data loader. One that cannot be read or
predicted does not end the run: the others are painted, it is listed at the end with the reason, and the exit code is 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.cli.options import add_cfg_options, add_checkpoint, add_config, add_device, cfg_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files or addresses")
    parser.add_argument("--out", type=Path, required=True, help="folder for the painted images")
    parser.add_argument("--score-thr", type=float, default=0.3, help="detections with a lower score are not painted")
    add_device(parser)
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Predict and paint one image after the other; print where each picture is."""
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.inference import open_predictor, paint_files

    config = load_config(args.config, options=cfg_options(args))
    predictor = open_predictor(config, args.checkpoint, args.device, args.score_thr)
    for image, target in paint_files(predictor, args.images, args.out):
        print(f"{image} -> {target}")
