"""Split a folder of images, one folder per class, into training and validation lists that datasets read.

Examples::

    eyetoy split data/caltech256/256_ObjectCategories --train 60 --exclude 257.clutter
    eyetoy split data/caltech-101/101_ObjectCategories --train 30 --exclude BACKGROUND_Google
    eyetoy split photos/by_class --train 0.8 --seed 1 --out photos/meta

It writes classes.txt, train.txt and val.txt into `meta` beside the folder. Files without the suffix of an image are
left out; the same folder, numbers and seed give the same lists.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from eyetoy_mm.cli.options import Several
from eyetoy_mm.datasets.files import files_below
from eyetoy_mm.datasets.splits import other_images, split_classes, told_of_others, write_split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("images", type=Path, metavar="FOLDER", help="folder with one folder of images per class")
    parser.add_argument(
        "--train",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="training images of each class: a number, or a fraction (default: 0.8)",
    )
    parser.add_argument(
        "--val", type=int, metavar="N", help="validation images of each class at most (default: all that are left)"
    )
    parser.add_argument(
        "--exclude", nargs="+", action=Several, default=[], metavar="CLASS", help="classes to leave out"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="seed of the draw (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the lists (default: meta beside the images' folder)"
    )


def run(args: argparse.Namespace) -> None:
    """Draw, write, and print what was done."""
    train, val = split_classes(args.images, args.train, args.val, args.exclude, args.seed)
    out = args.out or Path(os.path.abspath(args.images)).parent / "meta"  # beside a link, not beside where it leads
    write_split(out, train, val)
    for name, split in (("train.txt", train), ("val.txt", val)):
        counts = [len(paths) for paths in split.values()]
        each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
        print(f"{out / name}: {sum(counts)} images, {each} of each class")
    excluded = f", without {', '.join(args.exclude)}" if args.exclude else ""
    print(f"{out / 'classes.txt'}: {len(train)} classes{excluded}; seed {args.seed}")
    if others := other_images(map(str, files_below(args.images))):
        print(f"Left out: {told_of_others(others)}")
    print(f"In the config: num_classes={len(train)} in model.head and data_preprocessor")
