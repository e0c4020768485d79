"""Draw the curves of one or several runs, and print where each has come; mmseg, mmdet or mmpretrain.

Examples::

    eyetoy analyze-logs work_dirs/upernet_eyetoy_ade20k
    eyetoy analyze-logs work_dirs/a work_dirs/b --keys loss mIoU --out compared.png

A run is a work dir, the folder of one of its starts, or a scalars.json. Every run of `eyetoy train` ends with the same
picture in its work dir, results.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eyetoy_mm.cli.options import Several, check_picture
from eyetoy_mm.tables import for_terminal, markdown_table

if TYPE_CHECKING:
    from eyetoy_mm.engine.curves import Curves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work dir, or scalars.json")
    parser.add_argument(
        "--out", type=Path, default=Path("curves.png"), metavar="FILE", help="picture (default: curves.png)"
    )
    parser.add_argument(
        "--keys", nargs="+", action=Several, metavar="KEY", default=[], help="what to draw (default: loss, metrics)"
    )


def run(args: argparse.Namespace) -> None:
    """Read, draw, print."""
    from eyetoy_mm.engine.curves import draw_curves, read_curves

    check_picture("--out", args.out)
    runs = [read_curves(path) for path in args.runs]
    names = [curves.name for curves in runs]
    for curves, path in zip(runs, args.runs):
        if names.count(curves.name) > 1:
            curves.name = path
    figure = draw_curves(runs, args.keys)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=100)
    print(for_terminal(summary(runs, args.keys)))
    for curves in runs:
        if curves.broken:
            print(f"{curves.name}: {curves.broken} lines of the logs cannot be read, and are left out")
    print(f"-> {args.out}")


def summary(runs: list[Curves], keys: list[str]) -> str:
    """A line for each run and key: the last value, the smallest and the largest, and where they are."""
    from eyetoy_mm.engine.curves import shown_keys

    rows = []
    for curves in runs:
        for key in [*(keys or shown_keys(runs)), *([] if keys else ["time", "memory", "host_memory"])]:
            values = curves.of(key)
            if values:
                last, low, high = max(values), min(values, key=values.__getitem__), max(values, key=values.__getitem__)
                cells = [f"{values[at]:.5g} at {at}" for at in (last, low, high)]
                rows.append([curves.name, key, *cells])
    return markdown_table(["run", "", "last", "least", "most"], rows)
