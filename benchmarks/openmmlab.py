"""Which model configs of mmdet, mmseg and mmpretrain build, step and predict on this machine.

Usage::

    python benchmarks/openmmlab.py                                   # one config of every folder
    python benchmarks/openmmlab.py --every mmseg                     # every config of mmseg
    python benchmarks/openmmlab.py mmdet/dino mmseg/psanet           # every config of these folders
    python benchmarks/openmmlab.py --jobs 2 --into docs/openmmlab.md

Models are those of the configs, with initial weights, fewer proposals and queries, and small made-up images: no data
and no download is needed. A config "builds" (number of parameters), "steps" when the loss of a batch of two and every
gradient of it is finite, and "predicts" when it goes over an image in evaluation mode.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.toolbox_configs import (
    STAGES,
    TOOLBOXES,
    Outcome,
    config_files,
    first_of_each_folder,
    has_model,
    survey_all,
)
from eyetoy_mm.errors import UserError, report_user_errors
from eyetoy_mm.tables import markdown_table, write_into


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", metavar="TOOLBOX[/FOLDER]", help="what to look at (default: all three)")
    parser.add_argument("--every", action="store_true", help="every config, not one of every folder")
    parser.add_argument("--jobs", type=int, default=1, help="configs at a time")
    parser.add_argument("--seconds", type=float, default=300, help="time for one config")
    parser.add_argument("--into", type=Path, help="file that keeps a place for the table")
    return parser.parse_args()


def chosen(places: Sequence[str], every: bool) -> list[tuple[str, str]]:
    """Toolbox and path of the configs to look at."""
    configs = []
    for place in places or TOOLBOXES:
        toolbox, _, folder = place.partition("/")
        if toolbox not in TOOLBOXES:
            raise UserError(f"{place} is not in one of {', '.join(TOOLBOXES)}")
        files = [config for config in config_files(toolbox) if config.startswith(folder)]
        if every or folder:
            with_model = [config for config in files if has_model(toolbox, config)]
        else:
            with_model = first_of_each_folder(toolbox, files)
        if not with_model:
            raise UserError(f"there is no config with a model in {place}")
        configs += [(toolbox, config) for config in with_model]
    return configs


def table(outcomes: Sequence[Outcome]) -> str:
    """The counts, a row of each config, and what ended the others."""
    order = {toolbox: index for index, toolbox in enumerate(TOOLBOXES)}
    outcomes = sorted(outcomes, key=lambda outcome: (order[outcome.toolbox], outcome.config))
    parts = []
    for toolbox in order:
        of_toolbox = [outcome for outcome in outcomes if outcome.toolbox == toolbox]
        if of_toolbox:
            counts = (f"{sum(len(o.cells) > i for o in of_toolbox)} {stage}" for i, stage in enumerate(STAGES))
            parts.append(f"## {toolbox}\n\n{len(of_toolbox)} configs: {', '.join(counts)}.")
            rows = [[f"`{o.config}`", *o.cells, *["-"] * (len(STAGES) - len(o.cells)), o.reason] for o in of_toolbox]
            parts.append(markdown_table(["config", *STAGES, "if not, why"], rows))
    return "\n\n".join(parts)


@report_user_errors
def main() -> None:
    args = parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    outcomes = []
    configs = chosen(args.places, args.every)
    for outcome in survey_all(configs, args.jobs, args.seconds):
        outcomes.append(outcome)
        cells = ", ".join(outcome.cells) or "-"
        print(
            f"{len(outcomes)}/{len(configs)} {outcome.toolbox}/{outcome.config}: {cells} {outcome.reason} "
            f"({outcome.seconds:.0f} s)",
            file=sys.stderr,
        )
    if args.into is None:
        print(table(outcomes))
    else:
        write_into(args.into, "benchmarks/openmmlab.py", table(outcomes))


if __name__ == "__main__":
    main()
