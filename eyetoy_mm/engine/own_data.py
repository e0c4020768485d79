"""From a folder of somebody's data to a config that trains on it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.layouts import OURS, Found, look_at
from eyetoy_mm.datasets.layouts.common import check_parts, shown_size
from eyetoy_mm.datasets.layouts.parts import draw_parts
from eyetoy_mm.datasets.layouts.written import (
    needs_masks,
    write_coco,
    write_labels,
    write_masks,
    write_names,
    zero_is_ignored,
)
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.engine.check_dataset import SPLITS, check_dataset
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.data_checks import data_findings
from eyetoy_mm.engine.own_config import Data, Source, write_config
from eyetoy_mm.engine.recipes import DataSize, Machine, Recipe, choose_recipe
from eyetoy_mm.engine.terminal_log import quiet
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import check_folder

MOST_OPENED = 2000  # images that are all opened; of more, lists, annotations and some masks are read
_MEASURED = 500  # images whose heads are read for their size


@dataclass
class Request:
    """What is asked for.

    Args:
        folder: The data.
        config: The config that is written; None for one in the current folder, named after the data.
        out: Folder of what is made of the data; None for ``eyetoy_data`` in the folder.
        data_format: Of :data:`~eyetoy_mm.datasets.layouts.FORMATS`; None to find it.
        classes: Names, where the data do not have them; of COCO, those to learn.
        val_share: Share of the images that is drawn for validation; None to keep the parts of the data.
        seed: Of the draw.
        overwrite: Write over the config.
        command: The command line, for the config's first line.
    """

    folder: Path
    config: Path | None = None
    out: Path | None = None
    data_format: str | None = None
    classes: list[str] = field(default_factory=list)
    val_share: float | None = None
    seed: int = 0
    overwrite: bool = False
    command: str = "eyetoy init"


@dataclass
class Started:
    """What was found, decided and written.

    Args:
        found: The data.
        recipe: The schedule.
        machine: For which it is.
        config: The config.
        written: Files and folders that were made of the data.
        findings: What is wrong with the data, with the part it is of.
        opened: Images that were opened to see it; 0 where lists and annotations alone were read.
    """

    found: Found
    recipe: Recipe
    machine: Machine
    config: Path
    written: list[Path]
    findings: list[tuple[str, Finding]]
    opened: int


def start(request: Request, machine: Machine | None = None) -> Started:
    """Look at a folder, write a config for it, and check the data.

    Args:
        request: What is asked for.
        machine: Where it will run; None for this one.

    Raises:
        UserError: The folder is of no known format, is in no parts, or cannot be written to; or the config is there, or
            no file of Python.
    """
    root = Path(os.path.abspath(request.folder))
    config = request.config or Path(f"{_plain(root.name)}.py")
    if config.suffix != ".py":
        raise UserError(f"--config {config} should be a file that ends in .py: --config {config}.py")
    if request.out and request.out.suffix == ".py":
        raise UserError(f"--out {request.out} is the folder of what is made of the data; the config is --config FILE")
    if config.exists() and not request.overwrite:
        raise UserError(f"{config} is there already: write another one, --config FILE, or over it, --overwrite")
    out = Path(os.path.abspath(request.out)) if request.out else root / OURS
    if request.out:
        check_folder("--out", out)
    machine = machine or Machine.here()

    found = look_at(root, request.data_format, request.classes)
    if request.val_share is not None:
        draw_parts(found, request.val_share, request.seed)
    check_parts(found)
    data, written = arrange(found, out)
    recipe = choose_recipe(found.task, _measure(found), machine)
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(write_config(found.task, data, recipe, request.command), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the config {config}: {error}; choose another place: --config FILE") from error
    findings, opened = _check(config, found, machine)
    return Started(found, recipe, machine, config, written, findings, opened)


def _plain(name: str) -> str:
    """A name that can be a Python module's: mmengine imports configs."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in name)
    return plain or "own_data"


# --- What a config can read -------------------------------------------------------------------------------------------


def arrange(found: Found, out: Path) -> tuple[Data, list[Path]]:
    """Write what the toolboxes cannot read as it is, beside the data.

    Args:
        found: The data, in parts.
        out: The folder for it.

    Returns:
        What a config says of the data, and what was written.

    Raises:
        UserError: It cannot be written.
    """
    how = {"classification": _class_folders, "segmentation": _masks}.get(found.task, _boxes)
    return how(found, out)


def _boxes(found: Found, out: Path) -> tuple[Data, list[Path]]:
    if found.files:
        sources = {split: Source(file, (images,)) for split, (file, images) in found.files.items()}
        return Data(found.folder, found.classes, sources), []
    sources, written = {}, []
    for split in _parts(found):
        written.append(out / f"{split}.json")
        write_coco(found, split, written[-1])
        sources[split] = Source(_below(found.folder, written[-1]), ("",))
    return Data(found.folder, found.classes, sources), written


def _masks(found: Found, out: Path) -> tuple[Data, list[Path]]:
    parts, written = _parts(found), list[Path]()
    suffixes, ignores_zero = found.suffixes or ("", ".png"), zero_is_ignored(found)
    folders = dict(found.prefixes)
    if needs_masks(found):
        written.append(out / "masks")
        write_masks(found, written[0])
        suffixes, ignores_zero = ("", ".png"), False
        folders = dict.fromkeys(parts, ("", _below(found.folder, written[0])))
    elif _in_folders(found):
        return Data(found.folder, found.classes, {s: Source("", folders[s]) for s in parts}, suffixes, ignores_zero), []
    sources = {}
    for split in parts:
        written.append(out / f"{split}.txt")
        write_names(found, split, written[-1], folders[split][0], suffixes[0])
        sources[split] = Source(_below(found.folder, written[-1]), folders[split])
    return Data(found.folder, found.classes, sources, suffixes, ignores_zero), written


def _in_folders(found: Found) -> bool:
    """Whether the folders of each part hold its pairs and no other image."""
    folders, (of_image, of_mask) = found.prefixes, found.suffixes or ("", "")
    mixed = any(images == masks for images, masks in folders.values()) and of_mask.endswith(of_image)
    return len(set(folders.values())) == len(folders) and not found.left_out and not mixed


def _class_folders(found: Found, out: Path) -> tuple[Data, list[Path]]:
    parts = _parts(found)
    everywhere = all({item.label for item in found.of(split)} == set(found.classes) for split in parts)
    if found.prefixes and everywhere:
        return Data(found.folder, found.classes, {split: Source("", found.prefixes[split]) for split in parts}), []
    sources, written = {}, []
    for split in parts:
        written.append(out / f"{split}.txt")
        write_labels(found, split, written[-1])
        sources[split] = Source(_below(found.folder, written[-1]), ("",))
    return Data(found.folder, found.classes, sources), written


def _parts(found: Found) -> list[str]:
    counts = found.images()
    return [split for split in SPLITS if counts[split]]


def _below(root: Path, path: Path) -> str:
    """A path from the folder of the data, or whole where it is elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


# --- What is measured and checked -------------------------------------------------------------------------------------


def _measure(found: Found) -> DataSize:
    train = found.of("train")
    some = [train[index] for index in spread(len(train), _MEASURED)]
    shown = (item.size or shown_size(found.folder / item.image) for item in some)
    sizes = [size for size in shown if size and min(size) > 0]
    if not sizes:
        raise UserError(f"none of {first_few(item.image for item in some)} in {found.folder} can be read as an image")
    width, height = np.median(sizes, axis=0)
    boxes = [min(thing.box[2:]) for item in train for thing in item.things]
    return DataSize(len(train), (int(width), int(height)), boxes)


def _check(config: Path, found: Found, machine: Machine) -> tuple[list[tuple[str, Finding]], int]:
    """Everything about a small data set, by its files; of a large one what its lists and annotations say."""
    splits = _parts(found)
    with quiet():
        loaded = load_config(config)
        if len(found.items) <= MOST_OPENED:
            report = check_dataset(loaded, splits, machine.cores)
            return report.findings, report.images
        return [("", finding) for finding in data_findings(loaded, *splits)], 0
