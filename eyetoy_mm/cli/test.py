"""Evaluate a checkpoint on the test set of its config; mmseg, mmdet or mmpretrain.

Examples::

    eyetoy test configs/upernet_eyetoy_ade20k.py work_dirs/upernet_eyetoy_ade20k/iter_160000.pth
    eyetoy test CONFIG CHECKPOINT --show-dir shown --report report --json metrics.json --out predictions

What these options leave: docs/inference.md.
"""

from __future__ import annotations

import argparse

from eyetoy_mm.cli.options import (
    add_checkpoint,
    add_config,
    add_json,
    add_run_options,
    add_tta,
    beside_json,
    load_config_from,
    positive,
    write_json,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    add_tta(parser)
    parser.add_argument("--out", metavar="FOLDER", help="predictions as files: COCO's results, labels as PNG, scores")
    parser.add_argument("--show-dir", metavar="FOLDER", help="pictures of ground truth and prediction of each image")
    parser.add_argument(
        "--show-interval", type=positive, default=1, metavar="N", help="paint one of N images (default: 1, all of them)"
    )
    parser.add_argument(
        "--report", metavar="FOLDER", help="by class: a table, the confusion matrix, how sure the model is and is right"
    )
    add_json(parser, "all metrics, also by class, unrounded")
    add_run_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    from eyetoy_mm.engine.launch import Kept, evaluate

    kept = Kept(args.show_dir, args.show_interval, args.out, args.report)
    with beside_json(args):
        config = load_config_from(args)
        numbers = evaluate(config, args.checkpoint, tta=args.tta, kept=kept, in_numbers=bool(args.json))
    if numbers is not None:
        write_json(args.json, dict(config=args.config, checkpoint=args.checkpoint, tta=args.tta, **numbers))
