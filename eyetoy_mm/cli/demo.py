"""Train a model with EyeToy on the embedded images of cell nuclei from nothing, evaluate it, and paint what it learned.

Examples::

    eyetoy demo            # UperNet tells nuclei from background; three minutes on two CPU cores
    eyetoy demo detect     # Mask R-CNN finds every nucleus; six minutes
    eyetoy demo --short    # a fraction of it, to see that everything works

Everything is done by the verbs a user has: this calls `eyetoy train` and shows its progress.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.cli.options import add_work_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "task", nargs="?", choices=("segment", "detect"), default="segment", help="semantic or instance segmentation"
    )
    parser.add_argument("--short", action="store_true", help="train for a fraction of the iterations")
    add_work_dir(parser, "work_dirs/demo, or work_dirs/demo-detect")


def run(args: argparse.Namespace) -> None:
    """Train, evaluate, paint."""
    from eyetoy_mm.engine.demo import run_demo

    folder = "work_dirs/demo" if args.task == "segment" else f"work_dirs/demo-{args.task}"
    run_demo(args.task, Path(args.work_dir or folder), short=args.short)
