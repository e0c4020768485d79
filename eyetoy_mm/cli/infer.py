"""Predict images, folders, videos, a camera or addresses with a trained model; paint and save what it finds.

Examples::

    eyetoy infer NAME photo.jpg       # a model with weights of the package: `eyetoy models --weights`
    eyetoy infer CONFIG CHECKPOINT photo.jpg folder 'more/**/*.png' clip.mp4 --out painted
    eyetoy infer CONFIG CHECKPOINT 0 --out painted                   # a camera, until Ctrl-C or --frames N
    eyetoy infer CONFIG CHECKPOINT https://host/photo.jpg --out painted
    eyetoy infer CONFIG CHECKPOINT folder --out found --save-json --save-masks --classes person dog --score 0.5
    eyetoy infer CONFIG CHECKPOINT huge.tif --out found --tile 1024 --save-masks

Images are prepared as `eyetoy test` does, by the pipeline of the config's test data loader. One that cannot be read or
predicted does not end the run: the others are painted, it is listed at the end with the reason, and the exit code is 1.
What is saved, and how large images are predicted in windows: docs/inference.md.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path

from eyetoy_mm.cli.options import (
    Several,
    add_cfg_options,
    add_checkpoint,
    add_config,
    add_device,
    add_tta,
    cfg_options,
    positive,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders, patterns, videos, addresses, or a camera's number"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("painted"),
        metavar="FOLDER",
        help="folder for pictures and all that is saved (default: painted)",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="detections with a lower score are left out (default: 0.3)",
    )
    parser.add_argument("--score-thr", type=float, dest="score", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--classes", nargs="+", action=Several, metavar="CLASS", help="names or numbers of classes; others are left out"
    )
    add_tta(parser)
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images of one size that go together")
    parser.add_argument("--tile", type=positive, metavar="PIXELS", help="predict large images in windows of this side")
    parser.add_argument("--overlap", type=int, metavar="PIXELS", help="of these windows (default: a quarter of them)")
    parser.add_argument("--save-json", action="store_true", help="predictions.json: COCO's results, shares, scores")
    parser.add_argument("--save-masks", action="store_true", help="masks/*.png: labels, or numbers of objects")
    parser.add_argument("--save-txt", action="store_true", help="labels/*.txt: YOLO's boxes, or polygons of masks")
    parser.add_argument("--save-crops", action="store_true", help="crops/CLASS/*.png: what is in the boxes")
    parser.add_argument("--no-pictures", action="store_true", help="paint nothing")
    parser.add_argument("--frames", type=positive, metavar="N", help="read N frames of a video or camera at most")
    parser.add_argument("--frames-as-images", action="store_true", help="paint videos as a picture for each frame")
    add_device(parser)
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Predict one image after the other; print where each picture is."""
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.image_sources import count_frames, find_sources
    from eyetoy_mm.engine.inference import open_predictor
    from eyetoy_mm.engine.inference_run import Settings, infer
    from eyetoy_mm.engine.prediction_files import Wanted
    from eyetoy_mm.engine.predictions import Choice, class_numbers
    from eyetoy_mm.engine.terminal_log import tracked

    sources = find_sources(args.images, without=args.out)
    config = load_config(args.config, options=cfg_options(args))
    predictor = open_predictor(config, args.checkpoint, args.device, args.score, args.tta)
    classes = predictor.dataset_meta["classes"]
    settings = Settings(
        folder=args.out,
        pictures=not args.no_pictures,
        files=Wanted(args.save_json, args.save_masks, args.save_txt, args.save_crops),
        choice=Choice(classes, args.classes and class_numbers(args.classes, classes), args.score),
        batch=args.batch,
        tile=args.tile,
        overlap=args.overlap,
        frames=args.frames,
        frames_as_images=args.frames_as_images,
    )
    done = infer(predictor, sources, settings)
    try:
        with contextlib.closing(done):
            _report(tracked(done, "predicting", count_frames(sources, args.frames)))
    except KeyboardInterrupt:
        if all(source.kind != "camera" for source in sources):
            raise
    finally:
        for path in (args.out / name for name in settings.files.names()):
            if path.exists():
                print(f"-> {path}")


def _report(done: Iterable[tuple[str, Path | None]]) -> None:
    """Print a line for each image, and one for each video however many frames it has."""
    last = None
    for name, where in done:
        if where is None or where.suffix != ".mp4":
            print(f"{name} -> {where}" if where else name)
        elif where != last:
            print(f"{name.rpartition(', frame ')[0]} -> {where}")
        last = where
