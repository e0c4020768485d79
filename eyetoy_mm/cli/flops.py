"""Print parameters and FLOPs of the EyeToy family, and of backbones of mmpretrain beside it, as markdown tables.

Examples::

    eyetoy flops                                          # everything, at 224 and 512
    eyetoy flops --models tiny Swin-T --sizes 224 384
    eyetoy flops --into docs/models.md                    # in place of the tables there
    eyetoy flops --configs configs/nat/*upernet*.py       # whole detectors and segmentors

Backbones as they run in inference, without a classification head. FLOPs are those of mmengine's analysis for one square
image: a multiply-add is one; norms and resizing count by the element, other elementwise operations do not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eyetoy_mm.cli.options import Several, positive
from eyetoy_mm.tables import check_place, for_terminal, write_into

_PROGRAM = "tools/model_table.py"  # as pages name it that keep a place for its tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "--models", nargs="+", action=Several, metavar="NAME", help="backbones (default: all; a wrong name lists them)"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        action=Several,
        type=positive,
        default=[224, 512],
        metavar="PIXELS",
        help="sides of the image in pixels",
    )
    parser.add_argument(
        "--configs",
        nargs="+",
        action=Several,
        metavar="CONFIG",
        help="detectors and segmentors in place of backbones, at the field's 1280x800 and 2048x512",
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="file that keeps a place for the tables")


def run(args: argparse.Namespace) -> None:
    """Measure, then print or write."""
    from eyetoy_mm.engine.model_table import backbone_tables, config_table

    if args.into is not None:
        check_place(args.into, _PROGRAM)
    if args.configs is None:
        text, missing = backbone_tables(args.models, args.sizes)
        if missing:
            print(f"Left out, for their package does not have them: {', '.join(missing)}", file=sys.stderr)
    else:
        text = config_table(args.configs)
    if args.into is None:
        print(for_terminal(text))
    else:
        write_into(args.into, _PROGRAM, text)
