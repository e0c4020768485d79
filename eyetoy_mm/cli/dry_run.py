"""Run configs from end to end in a minute each, small, on the embedded photos: is everything in place on this machine?

Examples::

    eyetoy dry-run configs/upernet_eyetoy_ade20k.py
    eyetoy dry-run my_config.py --own-data       # on two images of its own datasets
    eyetoy dry-run --into docs/configs.md        # every config of the package, as the table there
    eyetoy dry-run configs/mask_rcnn_eyetoy_coco.py --into docs/configs.md  # its row alone

The model is the config's own; once it is counted, DINO's queries are as few as small images have places for. Images
are made small, batches are two images, two iterations are trained from scratch: figures after those say nothing about a
model. Classifiers learn the photos by their largest object; detectors of other classes than COCO's take those in turn,
and panoptic ones one segment of background. The table says of each config that it parses, builds (parameters), steps
(loss of a batch; every parameter has a finite gradient), trains (loss of the last iteration), evaluates (a metric of
the checkpoint) and infers (what was found in a photo).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.errors import UserError
from eyetoy_mm.tables import check_place, for_terminal, write_into, write_rows_into

_PROGRAM = "tools/dry_run.py"  # as pages name it that keep a place for its tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="configs (default: every one of the package)")
    parser.add_argument("--own-data", action="store_true", help="use the datasets of the configs, not the sample")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="file that keeps a place for the table, or has it, for CONFIGs"
    )


def run(args: argparse.Namespace) -> None:
    """Run one config after the other; print, or write, the table."""
    from eyetoy_mm.engine.config import find_config
    from eyetoy_mm.engine.dry_run import all_configs, dry_run_table

    if args.into is not None:
        check_place(args.into, _PROGRAM)
    table, failed = dry_run_table([find_config(config) for config in args.configs] or all_configs(), args.own_data)
    if args.into is None:
        print(for_terminal(table))
    else:
        write = write_rows_into if args.configs else write_into
        write(args.into, _PROGRAM, table)
    if failed:
        raise UserError("\n".join(failed))
