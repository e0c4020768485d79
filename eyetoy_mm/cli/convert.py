"""Turn published checkpoints of NAT, DiNAT and DiNAT_s into OpenMMLab files, and back.

Examples::

    eyetoy convert nat_tiny.pth nat-tiny_in1k.pth              # a classifier, for mmpretrain
    eyetoy convert maskrcnn_dinat_s_tiny.pth mask-rcnn.pth     # a detector or segmentor
    eyetoy convert nat-tiny_in1k.pth again.pth --to official   # and back, value for value
    eyetoy convert nat_tiny.pth nat-tiny_in1k.pth --config configs/nat/nat-tiny_8xb128_in1k.py

Prints the backbone that the weights are of; its dilations and padding are not in a file. The file must have all of that
backbone and no more; with a config, the OpenMMLab names must be all of that model, heads too. `init_cfg` of these
backbones takes both kinds of files, so this is for whole models: `load_from`, `eyetoy test`, `eyetoy infer`.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("source", metavar="SOURCE", help="checkpoint file")
    parser.add_argument("target", type=Path, metavar="TARGET", help="file to write")
    parser.add_argument("--to", choices=["openmmlab", "official"], default="openmmlab", help="names in the target")
    parser.add_argument("--config", metavar="CONFIG", help="config of the model that the OpenMMLab names must fit")


def run(args: argparse.Namespace) -> None:
    """Convert, and print what the weights are of."""
    from eyetoy_mm.engine.conversion import convert

    count, backbone = convert(args.source, args.target, official=args.to == "official", config=args.config)
    print(f"{args.source} -> {args.target}: {count} tensors, of the backbone")
    print(f"dict({', '.join(f'{key}={value!r}' for key, value in backbone.items())})")
