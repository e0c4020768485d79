"""Write the weights of a training checkpoint for others: named by their hash, with a model card.

Examples::

    eyetoy publish CONFIG work_dirs/run/iter_40000.pth --out published --licence cc-by-4.0 --metrics mIoU=45.1
    eyetoy publish CONFIG CHECKPOINT --out published --name upernet_eyetoy-tiny --half --format pth

Optimizer, log and config of the training, which has paths of the machine, are left out. Safetensors files load wherever
a checkpoint does, and need `pip install safetensors`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.cli.options import Several, add_cfg_options, add_checkpoint, add_config, cfg_options
from eyetoy_mm.errors import UserError
from eyetoy_mm.zoo import SUFFIXES

_FORMATS = [suffix.removeprefix(".") for suffix in SUFFIXES]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the two files go")
    parser.add_argument("--name", metavar="NAME", help="of the model (default: the config's)")
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="of the weights")
    parser.add_argument("--half", action="store_true", help="weights in 16 bits (float16): half the size")
    parser.add_argument(
        "--metrics", nargs="+", action=Several, default=[], metavar="NAME=VALUE", help="for the card, as measured"
    )
    parser.add_argument("--licence", default="not said", metavar="LICENCE", help="of the weights, for the card")
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Publish, and print the two files."""
    metrics = dict(metric.partition("=")[::2] for metric in args.metrics)
    if wrong := [metric for metric in args.metrics if not all(metric.partition("=")[::2])]:
        raise UserError(f"--metrics takes NAME=VALUE, got {wrong[0]!r}")
    from eyetoy_mm.engine.config import find_config, load_config
    from eyetoy_mm.engine.publishing import publish

    name = find_config(args.config).stem if args.name is None else args.name
    if not name or set(name) & set("/\\"):
        raise UserError(f"--name {name!r} should be the name of a model, and no path")
    config = load_config(args.config, options=cfg_options(args))
    for path in publish(config, args.checkpoint, args.out, name, args.format, args.half, metrics, args.licence):
        print(f"{path}: {path.stat().st_size:,} bytes")
