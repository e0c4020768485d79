"""Train a model of mmseg, mmdet or mmpretrain from a config file.

python tools/train.py configs/upernet_eyetoy_ade20k.py
torchrun --nproc_per_node 8 tools/train.py configs/upernet_eyetoy_ade20k.py --launcher pytorch
"""

from __future__ import annotations

import argparse
import os

from mmengine.config import DictAction
from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists
from eyetoy_mm.engine.config import check_data, load_config
from eyetoy_mm.engine.errors import report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config name>)")
    parser.add_argument("--data-root", help="folder of the dataset, in place of the config's data_root")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or without a value from the latest one in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate to the real batch size")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings: key.of.it=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Check everything that can be checked before the first iteration, then train."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    config = load_config(
        args.config,
        options=args.cfg_options,
        work_dir=args.work_dir,
        data_root=args.data_root,
        launcher=args.launcher,
        amp=args.amp,
    )
    if args.auto_scale_lr:
        config.auto_scale_lr.enable = True
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == "auto" else args.resume
    check_exists(config.get("load_from"))
    check_data(config, "train", "val")
    Runner.from_cfg(config).train()


if __name__ == "__main__":
    main()
