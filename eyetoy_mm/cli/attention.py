"""Show what a trained model looks at: the windows of a position in every head group, and the global tokens on the map.

Examples::

    eyetoy attention NAME photo.jpg    # a model with weights of the package: `eyetoy models --weights`
    eyetoy attention CONFIG CHECKPOINT photo.jpg --position 120,80 --block 1 --out attention.png

A panel for each head group of the block, and one for each of some tokens of the last global layer, all of them means
over the heads. Bright cells are attended most; the cross is the position, the frame around it its own token.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.cli.options import add_cfg_options, add_checkpoint, add_config, add_device, cfg_options, check_picture
from eyetoy_mm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("image", metavar="IMAGE", help="image file or address")
    parser.add_argument(
        "--position", metavar="X,Y", help="pixel of the image: column and row, from 0 (default: the middle)"
    )
    parser.add_argument(
        "--block", type=int, default=0, metavar="N", help="MSNAT block, from 0 through all stages (default: 0)"
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=4,
        metavar="N",
        help="global tokens, context token first (default: 4; 0: none, for models without a global stack)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("attention.png"),
        metavar="FILE",
        help="picture file; its suffix is the format (default: attention.png)",
    )
    add_device(parser)
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Check, predict, draw; print where the picture is."""
    from eyetoy_mm.engine.attention_picture import picture_attention
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.inference import open_predictor
    from eyetoy_mm.engine.preprocessing import check_image_exists

    check_picture("--out", args.out)
    position = pixel(args.position) if args.position else None
    check_image_exists(args.image)
    predictor = open_predictor(load_config(args.config, options=cfg_options(args)), args.checkpoint, args.device)
    image = predictor.read(args.image)
    position = position or (image.shape[1] // 2, image.shape[0] // 2)
    figure = picture_attention(predictor, image, position, args.block, args.tokens)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=100)
    print(f"{args.image} -> {args.out}")


def pixel(text: str) -> tuple[int, int]:
    """Read ``X,Y``.

    Raises:
        UserError: It is not two numbers.
    """
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        raise UserError(f"--position must be X,Y, the column and row of a pixel, got {text!r}") from None
    return x, y
