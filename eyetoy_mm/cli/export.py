"""Export a trained model to a file that runs without this package, checked against the model before it is written.

Examples::

    eyetoy export CONFIG CHECKPOINT --out model.onnx
    eyetoy export CONFIG CHECKPOINT --out backbone.onnx --part backbone
    eyetoy export CONFIG CHECKPOINT --out model.onnx --size 512,512 --image photo.jpg
    eyetoy export CONFIG CHECKPOINT --out model.onnx --kernels eyetoy --onnxruntime-headers onnxruntime/include
    eyetoy export CONFIG CHECKPOINT --out model.onnx --int8 photos      # smaller and faster, nearly as right
    eyetoy export CONFIG CHECKPOINT --out model.xml                      # OpenVINO
    eyetoy export CONFIG CHECKPOINT --out model.pt2 --size 512,512       # torch.export

Input: RGB images of 0..255, (batch, 3, height, width); normalisation and padding are inside. Segmentors give the label
of each pixel, classifiers scores and label, RetinaNet, Faster, Mask and Cascade R-CNN boxes after non-maximum
suppression, and masks. docs/export.md says more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eyetoy_mm.cli.options import add_cfg_options, add_checkpoint, add_config, cfg_options, height_and_width
from eyetoy_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from eyetoy_mm.engine.inference import Predictor

_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file: *.onnx, *.xml (OpenVINO) or *.pt2"
    )
    parser.add_argument("--format", choices=_SUFFIXES, help="default: by the end of --out")
    parser.add_argument(
        "--part", choices=["whole", "backbone"], default="whole", help="what to export (default: whole)"
    )
    parser.add_argument("--size", metavar="H,W", help="height and width, for a file of one size (default: any size)")
    parser.add_argument(
        "--kernels",
        choices=["plain", "eyetoy"],
        default="plain",
        help="standard operators, or our kernels as an operator of onnxruntime, put beside the file (default: plain)",
    )
    parser.add_argument(
        "--onnxruntime-headers", type=Path, metavar="FOLDER", help="for --kernels eyetoy: has onnxruntime_c_api.h"
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="FOLDER",
        help="products and convolutions in int8, calibrated with the photos of FOLDER: smaller, and faster on a CPU",
    )
    parser.add_argument("--image", dest="photo", metavar="IMAGE", help="check the file with this photo too")
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export, check, write; print what is in the file."""
    kind = _format(args)
    size = None if args.size is None else height_and_width(args.size)
    if kind == "pt2" and size is None:
        raise UserError("a .pt2 file is for one size: --size H,W; .onnx and .xml files take any")
    if (args.kernels == "eyetoy") != (args.onnxruntime_headers is not None):
        raise UserError("--kernels eyetoy and --onnxruntime-headers DIR go together: the operator is compiled for it")
    if args.kernels == "eyetoy" and kind != "onnx":
        raise UserError(f"--kernels eyetoy is for onnxruntime, and --out {args.out} is not")
    if args.int8 is not None and (kind != "onnx" or args.kernels == "eyetoy"):
        raise UserError(
            "--int8 is for .onnx files with --kernels plain: onnxruntime calibrates with its own operators alone"
        )

    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.inference import open_predictor
    from eyetoy_mm.engine.preprocessing import check_image_exists
    from eyetoy_mm.export.kernels import check_can_build
    from eyetoy_mm.export.runtimes import need
    from eyetoy_mm.paths import check_folder

    if kind != "pt2":
        need("export to ONNX", "onnx", "onnxruntime", "onnxscript")
    if args.onnxruntime_headers is not None:
        check_can_build(args.onnxruntime_headers)
    check_folder("--out", args.out.parent)
    if args.photo is not None:
        check_image_exists(args.photo)
    config = load_config(args.config, options=cfg_options(args))
    if args.int8 is not None:
        from eyetoy_mm.export.int8 import check_has_labels, find_photos

        check_has_labels(config.default_scope, args.part)
        find_photos(args.int8)
    predictor = open_predictor(config, args.checkpoint, device="cpu")
    if args.photo is not None:
        predictor.read(args.photo)  # that it cannot be read is told before the graph is built, which takes a minute
    for line in _export(kind, predictor, config, size, args):
        print(line, flush=True)


def _format(args: argparse.Namespace) -> str:
    of_suffix = {suffix: kind for kind, suffix in _SUFFIXES.items()}
    kind = of_suffix.get(args.out.suffix)
    if kind is None:
        raise UserError(f"--out {args.out} must be a file that ends in {', '.join(_SUFFIXES.values())}")
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; name a file in it, as {args.out / f'model{_SUFFIXES[kind]}'}")
    if args.format not in (None, kind):
        raise UserError(f"--format {args.format} is for files that end in {_SUFFIXES[args.format]}, got {args.out}")
    return kind


def _export(
    kind: str, predictor: Predictor, config: Config, size: tuple[int, int] | None, args: argparse.Namespace
) -> Iterator[str]:
    if kind == "pt2":
        from eyetoy_mm.export.pt2_file import export_pt2

        assert size is not None
        return export_pt2(predictor, config, args.out, args.part, size, args.photo)
    if kind == "openvino":
        from eyetoy_mm.export.openvino_file import export_openvino

        return export_openvino(predictor, config, args.out, args.part, size, args.photo)
    from eyetoy_mm.export.onnx_file import export_onnx

    return export_onnx(predictor, config, args.out, args.part, size, args.photo, args.onnxruntime_headers, args.int8)
