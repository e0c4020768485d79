"""Look at a folder of your own data, say what it is, and write a config that trains on it.

Examples::

    eyetoy init my_data                     # finds format and classes, writes my_data.py in this folder
    eyetoy init my_data --val-share 0.1         # where nothing parts it: every tenth image is for validation
    eyetoy init my_data --data-format coco --classes cat dog --config configs/pets.py

Formats: coco (COCO, Roboflow, CVAT), yolo (Ultralytics, Roboflow, CVAT), voc (Pascal VOC, Roboflow, CVAT), cvat (CVAT
for images), labelme, masks (images and masks of labels), class-folders (a folder of images for each class). Your files
stay as they are: COCO files, lists and masks of numbers that are made of them go into `eyetoy_data` in the folder.
Every decision is printed, with what changes it. The exit code is 1 where a run on these data would be wrong.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eyetoy_mm.cli.options import Several
from eyetoy_mm.errors import UserError, counted, first_few
from eyetoy_mm.tables import labelled

if TYPE_CHECKING:
    from eyetoy_mm.engine.own_data import Started

_FORMATS = ("coco", "yolo", "voc", "cvat", "labelme", "masks", "class-folders")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("folder", type=Path, metavar="DATA_FOLDER", help="folder with images and annotations")
    parser.add_argument("--config", metavar="CONFIG", help="config to write (default: <name of the folder>.py, here)")
    parser.add_argument("--data-format", choices=_FORMATS, help="format of the data (default: found)")
    parser.add_argument(
        "--classes",
        nargs="+",
        action=Several,
        default=[],
        metavar="CLASS",
        help="names in the order of labels; of COCO: to learn",
    )
    parser.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="draw validation images (default: the parts that the data have)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="seed of the draw (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of what is made of the data (default: eyetoy_data in it)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over the config")


def run(args: argparse.Namespace) -> None:
    """Look, write and tell."""
    from eyetoy_mm.engine.own_data import Request, start

    names = ("folder", "config", "out", "data_format", "classes", "val_share", "seed", "overwrite")
    command = f"eyetoy init {shlex.quote(str(args.folder))}"
    settings = vars(args) | {"config": args.config and Path(args.config)}
    started = start(Request(**{name: settings[name] for name in names}, command=command))
    print("\n".join(_told(started)))
    fatal = sum(finding.fatal for _, finding in started.findings)
    if fatal:
        raise UserError(
            f"{counted(fatal, 'finding')} with which a run would be wrong. {started.config} is written; correct the "
            "data, and run this again with --overwrite"
        )


def _told(started: Started) -> Iterator[str]:
    """What was found, decided and written, and what comes next."""
    found, recipe = started.found, started.recipe
    yield labelled("found", f"{found.format}: {_content(started)}")
    yield labelled("learnt", _task(found.task))
    yield labelled("classes", f"{len(found.classes)}, from {found.names_from}: {_classes(started)}")
    yield labelled("parts", _parts(started))
    for decision in found.decided:
        yield labelled("decided", decision)
    yield labelled("machine", str(started.machine))
    for reason in recipe.why:
        yield labelled("recipe", reason)
    for path in started.written:
        yield labelled("made", str(path))
    looked = "lists and annotations read, images not opened (eyetoy check opens them)"
    if started.opened:
        looked = f"{counted(started.opened, 'image')} opened, with their masks and annotations"
    yield labelled("checked", f"{looked}: {counted(len(started.findings), 'finding')}")
    for split, finding in sorted(started.findings, key=lambda pair: not pair[1].fatal):
        where = f"{split}: " * bool(split)
        yield labelled("error" if finding.fatal else "warning", f"{where}{finding}")
    yield labelled("config", f"{started.config}: change in it what you want otherwise")
    yield ""
    yield "Next:"
    for verb, options in (("dry-run", "--own-data"), ("check", "--plot classes.png"), ("train", "")):
        yield f"    eyetoy {verb} {shlex.quote(str(started.config))} {options}".rstrip()


def _content(started: Started) -> str:
    found = started.found
    text = counted(len(found.items), "image")
    if found.task in ("instances", "detection"):
        without = sum(not item.things for item in found.items)
        text += f", {counted(sum(len(item.things) for item in found.items), 'object')}"
        text += f", {counted(without, 'image')} without" if without else ""
    return text


def _task(task: str) -> str:
    return {
        "classification": "a class for each image (mmpretrain)",
        "segmentation": "a class for each pixel (mmseg), from masks",
        "instances": "boxes and masks of objects (mmdet), because every object has an outline",
        "detection": "boxes of objects (mmdet), because not every object has an outline",
    }[task]


def _classes(started: Started) -> str:
    counts = started.found.counts()
    if started.found.task == "segmentation":
        return first_few(started.found.classes, 20)
    return first_few((f"{name} ({counts[name]:,})" for name in started.found.classes), 20)


def _parts(started: Started) -> str:
    counts = started.found.images()
    return ", ".join(f"{counts[split]:,} {split}" for split in ("train", "val", "test") if counts[split])
