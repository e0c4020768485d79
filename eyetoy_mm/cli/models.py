"""List the models that come with the package: names, tasks, parameters, published figures, and which have weights.

Examples::

    eyetoy models                              # all of them
    eyetoy models --weights                    # those with weights: `eyetoy infer NAME photo.jpg --out painted`
    eyetoy models 'upernet*' mask-rcnn --flops # some of them, FLOPs counted (seconds each)
    eyetoy models --task 'Semantic Segmentation' --json

A name stands for the config in every verb, and for the weights wherever a checkpoint does; DetInferencer,
MMSegInferencer and mmpretrain's get_model take it too. FLOPs are those of one image: 1280x800 for detectors, 2048x512
for segmentors, that of the config's evaluation for classifiers. Those of backbones alone: `eyetoy flops`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from fnmatch import fnmatchcase
from typing import Any

from eyetoy_mm.cli.options import add_json, write_json
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address
from eyetoy_mm.tables import for_terminal, markdown_table
from eyetoy_mm.zoo import TOOLBOXES, Model, card_of, models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="parts of names, or patterns with * (default: all)"
    )
    parser.add_argument("--task", choices=list(TOOLBOXES), help="models for this task alone")
    parser.add_argument("--weights", action="store_true", help="models with weights alone")
    parser.add_argument("--flops", action="store_true", help="count the FLOPs of each")
    add_json(parser, "the models, with their files and addresses")


def run(args: argparse.Namespace) -> None:
    """Choose, count, print."""
    chosen = [model for model in models() if _is_wanted(model, args)]
    if not chosen:
        asked = " ".join(args.patterns) or "these options"
        raise UserError(f"there is no model for {asked}; `eyetoy models` lists all")
    with contextlib.redirect_stdout(sys.stderr):  # what is logged meanwhile is no part of a table either
        flops = {model.name: _flops(model) for model in chosen} if args.flops else {}
    if args.json:
        write_json(args.json, [_as_json(model, flops.get(model.name)) for model in chosen])
        return
    header = ["name", "task", "trained on", "parameters", *(["FLOPs"] if args.flops else []), "figures", "weights"]
    print(for_terminal(markdown_table(header, [_row(model, flops.get(model.name)) for model in chosen])))


def _is_wanted(model: Model, args: argparse.Namespace) -> bool:
    patterns = [pattern if "*" in pattern else f"*{pattern}*" for pattern in args.patterns]
    return (
        (not patterns or any(fnmatchcase(model.name, pattern) for pattern in patterns))
        and (args.task is None or args.task in model.tasks)
        and not (args.weights and model.weights is None)
    )


def _flops(model: Model) -> tuple[int, str]:
    """FLOPs of one image, and its size."""
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.model_table import complexity, usual_size

    config = load_config(model.config)
    height, width = usual_size(config)
    return complexity(config, height, width)[1], f"{width}x{height}"


def _row(model: Model, flops: tuple[int, str] | None) -> list[str]:
    figures = "; ".join(
        f"{data}: " + ", ".join(f"{metric} {value:g}" for metric, value in metrics.items())
        for data, metrics in model.results.items()
    )
    return [
        model.name,
        ", ".join(model.tasks),
        model.data,
        f"{model.parameters / 1e6:.2f} M" if model.parameters else "-",
        *([f"{flops[0] / 1e9:.2f} G at {flops[1]}"] if flops else []),
        figures or "-",
        "-" if model.weights is None else "download" if is_address(model.weights) else "here",
    ]


def _as_json(model: Model, flops: tuple[int, str] | None) -> dict[str, Any]:
    card = card_of(model.weights) if model.weights else None
    return dict(
        name=model.name,
        config=str(model.config),
        toolbox=model.toolbox,
        tasks=list(model.tasks),
        data=model.data,
        parameters=model.parameters,
        results=model.results,
        weights=model.weights,
        card=None if card is None else str(card),
        **({} if flops is None else dict(flops=flops[0], image=flops[1])),
    )
