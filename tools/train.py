"""Train a model of mmseg, mmdet or mmpretrain from a config file.

Usage::

    python tools/train.py configs/upernet_eyetoy_ade20k.py
    torchrun --nproc_per_node 8 tools/train.py configs/upernet_eyetoy_ade20k.py --launcher pytorch
"""

from __future__ import annotations

import argparse

from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists
from eyetoy_mm.engine.config import add_arguments, check_data, load_config_from
from eyetoy_mm.errors import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or without a value from the latest one in the work dir",
    )
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate to the real batch size")
    add_arguments(parser)
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Check everything that can be checked before the first iteration, then train."""
    args = parse_args()
    config = load_config_from(args)
    if args.auto_scale_lr:
        if "auto_scale_lr" not in config:
            raise UserError(f"{args.config} has no auto_scale_lr=dict(base_batch_size=...) to scale from")
        config.auto_scale_lr.enable = True
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == "auto" else args.resume
    check_exists(config.get("load_from"))
    check_data(config, "train", "val")
    Runner.from_cfg(config).train()


if __name__ == "__main__":
    main()
