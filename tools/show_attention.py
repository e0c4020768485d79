"""Show what a trained model looks at: the windows of a position in every head group, and the global tokens on the map.

Usage::

    python tools/show_attention.py CONFIG CHECKPOINT photo.jpg --position 120,80 --block 1 --out attention.png

A panel for each head group of the block, and one for each of some tokens of the last global layer, all of them means
over the heads. Bright cells are attended most; the cross is the position, the frame around it its own token.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.config import DictAction

from eyetoy_mm.engine.attention_picture import picture_attention
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor, read_image
from eyetoy_mm.errors import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file of mmseg, mmdet or mmpretrain")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    parser.add_argument("--position", required=True, metavar="X,Y", help="pixel of the image: column and row, from 0")
    parser.add_argument("--block", type=int, default=0, help="MSNAT block, from 0 through all stages (default: 0)")
    parser.add_argument(
        "--tokens", type=int, default=4, help="global tokens, context token first (default: 4; 0: without them)"
    )
    parser.add_argument("--out", type=Path, required=True, help="picture file; its suffix is the format")
    parser.add_argument("--device", help="torch device (default: an accelerator if there is one)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings: key.of.it=value ...")
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Check, predict, draw; print where the picture is."""
    args = parse_args()
    formats = Figure().canvas.get_supported_filetypes()
    if args.out.suffix.removeprefix(".") not in formats:
        raise UserError(f"--out {args.out} must end in one of {', '.join(f'.{name}' for name in sorted(formats))}")
    position = pixel(args.position)
    image = read_image(args.image)
    predictor = open_predictor(load_config(args.config, options=args.cfg_options), args.checkpoint, args.device)
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


if __name__ == "__main__":
    main()
