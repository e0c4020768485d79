"""Export a trained model to an ONNX file that takes images of any size, checked against the model before it is written.

Examples::

    eyetoy export CONFIG CHECKPOINT --out model.onnx
    eyetoy export CONFIG CHECKPOINT --out backbone.onnx --part backbone
    eyetoy export CONFIG CHECKPOINT --out model.onnx --size 512,512 --image photo.jpg

Input: RGB images of 0..255, (batch, 3, height, width); normalisation and padding are inside. Segmentors give the label
of each pixel, classifiers scores and label, RetinaNet, Faster, Mask and Cascade R-CNN boxes after non-maximum
suppression, and masks. docs/export.md says more.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from eyetoy_mm.cli.options import add_cfg_options, add_checkpoint, add_config, cfg_options
from eyetoy_mm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, help="the file, *.onnx")
    parser.add_argument(
        "--part", choices=["whole", "backbone"], default="whole", help="what to export (default: whole)"
    )
    parser.add_argument("--size", metavar="H,W", help="height and width, for a file of one size (default: any size)")
    parser.add_argument("--image", metavar="PHOTO", help="check the file with this photo too")
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export, check, write; print what is in the file."""
    if args.out.suffix != ".onnx" or args.out.is_dir():
        raise UserError(f"--out {args.out} must be a file that ends in .onnx")
    size = None if args.size is None else height_and_width(args.size)
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"export to ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.inference import open_predictor
    from eyetoy_mm.engine.preprocessing import check_image_exists
    from eyetoy_mm.export.onnx_file import export_onnx
    from eyetoy_mm.paths import check_folder

    check_folder("--out", args.out.parent)
    if args.image is not None:
        check_image_exists(args.image)
    config = load_config(args.config, options=cfg_options(args))
    predictor = open_predictor(config, args.checkpoint, device="cpu")
    for line in export_onnx(predictor, config, args.out, args.part, size, args.image):
        print(line, flush=True)


def height_and_width(text: str) -> tuple[int, int]:
    """Read ``H,W``.

    Raises:
        UserError: It is not two numbers of at least 1.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise UserError(f"--size must be H,W, height and width in pixels, got {text!r}")
    return int(parts[0]), int(parts[1])
