"""Time models side by side: configs and exported files, latency, throughput and peak memory.

Examples::

    eyetoy benchmark eyetoy_mm::sample/upernet_eyetoy-demo_sample.py eyetoy_mm::sample/upernet_nat-demo_sample.py
    eyetoy benchmark CONFIG model.onnx --size 224,224 --threads 1        # a file beside the model that it is from
    eyetoy benchmark CONFIG CONFIG2 --mode train --batch 2 --device cuda
    eyetoy benchmark CONFIG model.onnx --cfg-options model.test_cfg.mode=whole   # of the configs
    eyetoy benchmark CONFIG model.onnx --json times.json --into docs/page.md

Every model has a process of its own, and in each round every one takes a turn, so that all meet the same disturbances.
`forward` is from images to predictions, as the toolbox tests the model; `train` is loss and gradients, without an
optimizer. Weights are initial ones, images made up. The ratio is the median over rounds of a model's time over that of
the first model. Memory is the peak beyond what the process has before the model is loaded: weights are part of it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from eyetoy_mm.cli.options import add_cfg_options, add_json, cfg_options, height_and_width, positive, write_json
from eyetoy_mm.errors import UserError
from eyetoy_mm.tables import check_place, for_terminal, write_into

_PROGRAM = "tools/benchmark.py"  # as pages name it that keep a place for its tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="config file, eyetoy_mm::PATH, or exported file (.onnx, .xml, .pt2)"
    )
    parser.add_argument("--mode", choices=["forward", "train"], default="forward", help="default: forward")
    parser.add_argument("--size", metavar="H,W", default="512,512", help="height and width (default: 512,512)")
    parser.add_argument("--batch", type=positive, metavar="N", help="images (default: 1, and 2 to train)")
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--threads", type=positive, default=os.cpu_count() or 1, metavar="N", help="of each (default: all cores)"
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "processor"],
        default="wall",
        help="processor: time at work, of all threads, for a machine that does something else (default: wall)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=15, metavar="N", help="turns of each model that count (default: 15)"
    )
    add_json(parser, "every time that was taken")
    add_cfg_options(parser)
    parser.add_argument("--into", type=Path, metavar="FILE", help="file that keeps a place for the table")


def run(args: argparse.Namespace) -> None:
    """Measure; print a table, and write what is asked for."""
    from eyetoy_mm.export.benchmark import Task, measure, table

    if args.into is not None:
        check_place(args.into, _PROGRAM)
    if args.device not in ("cpu", "cuda"):
        raise UserError(f"--device of a benchmark is cpu or cuda, got {args.device!r}")
    size, batch = height_and_width(args.size), args.batch or (2 if args.mode == "train" else 1)
    task = Task(args.mode, size, batch, args.device, args.threads, args.clock, cfg_options(args))
    report = measure(args.models, task, args.rounds)
    text = table(report)
    if args.json is not None:
        write_json(args.json, report)
    if args.into is None and args.json != "-":
        print(for_terminal(text))
    elif args.into is not None:
        write_into(args.into, _PROGRAM, text)
