"""Train UperNet with EyeToy on the embedded photos, evaluate before and after, and paint what it learned.

Examples::

    eyetoy demo            # a few minutes on two CPU cores
    eyetoy demo --short    # a fraction of it, to see that everything works

Everything is done by the verbs a user has: this calls `eyetoy train` and shows its progress.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyetoy_mm.cli.options import add_work_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("--short", action="store_true", help="train for a fraction of the iterations")
    add_work_dir(parser, "work_dirs/demo")


def run(args: argparse.Namespace) -> None:
    """Train, compare, paint."""
    from eyetoy_mm.engine.demo import demo

    demo(Path(args.work_dir or "work_dirs/demo"), short=args.short)
