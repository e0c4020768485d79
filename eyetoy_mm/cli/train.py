"""Train a model of mmseg, mmdet or mmpretrain from a config file.

Examples::

    eyetoy train configs/upernet_eyetoy_ade20k.py
    eyetoy train eyetoy_mm::upernet_eyetoy_ade20k.py --data-root path/to/ADEChallengeData2016
    eyetoy train CONFIG --log tensorboard,wandb        # then: tensorboard --logdir work_dirs
    torchrun --nproc_per_node 8 -m eyetoy_mm.cli train configs/upernet_eyetoy_ade20k.py --launcher pytorch
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eyetoy_mm.cli.options import Several, add_config, add_run_options, load_config_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or without a value from the latest one in the work dir",
    )
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate to the real batch size")
    parser.add_argument("--force", action="store_true", help="run in a work dir that another run is using")
    parser.add_argument(
        "--log",
        "--track",
        dest="track",
        nargs="+",
        action=Several,
        metavar="PROGRAM",
        help="log for tensorboard, wandb (offline) and mlflow besides",
    )
    add_run_options(parser)


def run(args: argparse.Namespace) -> None:
    """Train."""
    from eyetoy_mm.engine.launch import train

    config = load_config_from(args)
    if args.track:
        config.track = [name for names in args.track for name in names.split(",") if name]
    try:
        train(config, resume=args.resume, auto_scale_lr=args.auto_scale_lr, force=args.force)
    except KeyboardInterrupt:
        saved = Path(config.work_dir, "last_checkpoint").is_file()
        state = "go on from the last checkpoint with --resume" if saved else "no checkpoint was saved yet"
        print(f"{config.work_dir}: {state}", file=sys.stderr)
        raise
