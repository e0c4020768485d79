"""Open every image and mask of a config's datasets and tell what is wrong with them, before a run meets it.

Examples::

    eyetoy check configs/upernet_eyetoy_ade20k.py --data-root path/to/ADEChallengeData2016
    eyetoy check my_config.py --jobs 16 --json findings.json --plot classes.png
    eyetoy check my_config.py --split train --strict      # warnings too make the exit code 1

Training looks at the lists and the annotation files first, and at each image as it is loaded. Here every file is read
and decoded as in training: corrupt, cut off, empty and odd ones; sizes and EXIF orientation against the annotation;
labels of every mask; images of training among those of evaluation, by their content. The exit code is 1 where a run
would be wrong, else 0.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyetoy_mm.cli.options import (
    Several,
    add_cfg_options,
    add_config,
    add_data_root,
    add_json,
    beside_json,
    cfg_options,
    check_picture,
    positive,
    write_json,
)
from eyetoy_mm.errors import UserError, counted
from eyetoy_mm.tables import labelled

if TYPE_CHECKING:
    from eyetoy_mm.engine.check_dataset import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_data_root(parser)
    parser.add_argument(
        "--split",
        nargs="+",
        action=Several,
        choices=["train", "val", "test"],
        default=["train", "val", "test"],
        help="default: all",
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that open files (default: one per core)",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
    add_json(parser, "everything that was found")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how often classes are and how large boxes are")
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Look; print what was found, and write what is asked for."""
    from eyetoy_mm.engine.check_dataset import check_dataset
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.terminal_log import tracked

    if args.plot:
        check_picture("--plot", args.plot)
    with beside_json(args):
        config = load_config(args.config, options=cfg_options(args), data_root=args.data_root)
        report = check_dataset(
            config, args.split, args.jobs, lambda items, total: tracked(items, "opening images", total)
        )
        for line in (*told(report), summary(report)):
            print(line)
    if args.json:
        write_json(args.json, as_json(report, args.config))
    if args.plot:
        from eyetoy_mm.engine.dataset_picture import picture_dataset

        args.plot.parent.mkdir(parents=True, exist_ok=True)
        picture_dataset(report).savefig(args.plot)
        with beside_json(args):
            print(f"-> {args.plot}")
    if report.fatal() or (args.strict and report.findings):
        wrong = counted(report.fatal(), "finding")
        raise UserError(f"{wrong} with which a run would be wrong, {len(report.findings)} in all")


def told(report: Report) -> Iterator[str]:
    """A paragraph for each finding, those that stop a run first."""
    for split, finding in sorted(report.findings, key=lambda pair: not pair[1].fatal):
        where = f"{split}: " * bool(split)
        yield labelled("error" if finding.fatal else "warning", f"{where}{finding}")


def summary(report: Report) -> str:
    """A line of what was opened and found."""
    speed = report.images / report.seconds
    unopened = f"; samples without a file of their own: {report.not_opened:,}" if report.not_opened else ""
    warnings = len(report.findings) - report.fatal()
    return (
        f"{counted(report.images, 'image')} opened in {report.seconds:.1f} s ({speed:.0f} a second){unopened}: "
        f"{counted(report.fatal(), 'error')}, {counted(warnings, 'warning')}"
    )


def as_json(report: Report, config: str) -> dict[str, Any]:
    """Everything that was found, for other programs."""
    findings = [
        dict(
            split=split,
            kind=finding.kind,
            fatal=finding.fatal,
            count=finding.total,
            message=finding.message,
            where=list(finding.where),
        )
        for split, finding in report.findings
    ]
    return dict(
        config=config,
        images=report.images,
        not_opened=report.not_opened,
        seconds=round(report.seconds, 2),
        findings=findings,
        unit=report.unit,
        classes=report.counts,
        boxes={split: boxes.round(1).tolist() for split, boxes in report.boxes.items()},
    )
