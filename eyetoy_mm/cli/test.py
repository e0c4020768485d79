"""Evaluate a checkpoint on the test set of its config; mmseg, mmdet or mmpretrain.

Example::

    eyetoy test configs/upernet_eyetoy_ade20k.py work_dirs/upernet_eyetoy_ade20k/iter_160000.pth
"""

from __future__ import annotations

import argparse

from eyetoy_mm.cli.options import add_checkpoint, add_config, add_run_options, load_config_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as tta_model and tta_pipeline say")
    parser.add_argument("--show-dir", help="folder for pictures of ground truth and prediction, one of each image")
    parser.add_argument(
        "--show-interval", type=int, default=1, metavar="N", help="paint one of N images (default: 1, all of them)"
    )
    add_run_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    from eyetoy_mm.engine.launch import evaluate

    evaluate(
        load_config_from(args),
        args.checkpoint,
        tta=args.tta,
        show_dir=args.show_dir,
        show_interval=args.show_interval,
    )
