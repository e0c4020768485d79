"""What is read out of a folder, in whatever format: images, what is known of each, and which part it is of."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from eyetoy_mm.datasets.files import check_is_file, files_below
from eyetoy_mm.datasets.image_files import SWAPS_SIDES, read_header
from eyetoy_mm.datasets.splits import IMAGE_SUFFIXES, other_images, told_of_others
from eyetoy_mm.errors import UserError, first_few

T = TypeVar("T")
OURS = "eyetoy_data"  # the folder beside a user's files that what is made of them goes into
_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(slots=True)
class Thing:
    """An object in an image.

    Args:
        label: Name of its class.
        box: Left, top, width and height in pixels.
        outline: Polygons ``[[x, y, x, y, ...], ...]``, or run lengths as pycocotools has them; None for a box alone.
        crowd: A group that stands for many.
    """

    label: str
    box: tuple[float, float, float, float]
    outline: list[list[float]] | dict[str, Any] | None = None
    crowd: bool = False


@dataclass(slots=True)
class Item:
    """An image, and what is known of it.

    Args:
        image: Its path from the folder.
        split: ``train``, ``val`` or ``test``; empty where nothing says it.
        label: Its class, of classification.
        mask: The path of its labels from the folder, of segmentation.
        size: Width and height as annotated.
        things: Its objects, of detection.
    """

    image: str
    split: str = ""
    label: str = ""
    mask: str = ""
    size: tuple[int, int] | None = None
    things: list[Thing] = field(default_factory=list)


@dataclass
class Found:
    """What a folder holds.

    Args:
        folder: The folder.
        format: Its format, as :data:`~eyetoy_mm.datasets.layouts.FORMATS` has it.
        classes: Names in the order of their labels.
        items: Every image.
        decided: What was decided in reading it, a sentence each, with how to change it.
        names_from: Where the names of the classes are from.
        files: Of COCO: the annotation file and the folder of images of each part, as they may be read directly.
        values: Of masks: the label of each number in them; None where they are colours.
        colours: Of masks in colour: the label of each.
        in_channels: Of masks: whether numbers are there in several channels, all the same, as in an RGB picture.
        suffixes: Of masks: how names of images and of masks end, after what both have in common; None where that is
            not the same for all.
        prefixes: Of masks and class folders: the folders of each part, where each has one.
        left_out: Images that nothing is known of.
    """

    folder: Path
    format: str
    classes: list[str]
    items: list[Item]
    decided: list[str] = field(default_factory=list)
    names_from: str = ""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    values: dict[int, int] | None = None
    colours: dict[tuple[int, int, int], int] | None = None
    in_channels: bool = False
    suffixes: tuple[str, str] | None = None
    prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def task(self) -> str:
        """What a model of it learns: ``classification``, ``segmentation``, ``instances`` or ``detection``."""
        if self.format == "class-folders":
            return "classification"
        if self.format == "masks":
            return "segmentation"
        outlined = [thing.outline is not None for item in self.items for thing in item.things if not thing.crowd]
        return "instances" if outlined and all(outlined) else "detection"

    def of(self, split: str) -> list[Item]:
        """The images of a part."""
        return [item for item in self.items if item.split == split]

    def images(self) -> Counter[str]:
        """How many images there are of each part."""
        return Counter(item.split for item in self.items)

    def counts(self) -> Counter[str]:
        """How many objects, or images, there are of each class."""
        labels = (thing.label for item in self.items for thing in item.things)
        return Counter(labels) if self.task in ("instances", "detection") else Counter(i.label for i in self.items)


class Tree:
    """The files below a folder; hidden ones and what was made of them before are left out.

    Args:
        folder: The folder.

    Raises:
        UserError: There is no such folder, or no image in it.
    """

    def __init__(self, folder: Path) -> None:
        if folder.is_file():
            what = "an archive: unpack it, and give the folder" if suffix_of(folder.name) in _ARCHIVES else "a file"
            raise UserError(f"{folder} is {what}; a folder with images and their annotations is looked at")
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
        self.folder = folder
        self._found: dict[Callable[[Tree], Any], Any] = {}
        self.files = sorted(_files_below(folder))
        self.images = [name for name in self.files if suffix_of(name) in IMAGE_SUFFIXES]
        self.others = other_images(self.files)
        if not self.images:
            raise UserError(
                f"{folder} has no image ({', '.join(IMAGE_SUFFIXES)}); it has {self.described()}. {self._remedy()}"
            )

    def _remedy(self) -> str:
        if self.others:
            return f"These are {told_of_others(self.others)}"
        if archives := self.ending(*_ARCHIVES):
            return f"Unpack {first_few(archives, 3)}"
        return "Give the folder that holds the images and their annotations"

    @cached_property
    def known(self) -> set[str]:
        """The files, to look a name up."""
        return set(self.files)

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The names of the images in each folder."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.images:
            found[parent_of(name)].append(PurePosixPath(name).name)
        return dict(found)

    def once(self, find: Callable[[Tree], T]) -> T:
        """What a function finds in it: what speaks for a format is what is read then, and not looked for again."""
        if find not in self._found:
            self._found[find] = find(self)
        return self._found[find]

    def ending(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes."""
        return [name for name in self.files if suffix_of(name) in suffixes]

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.folder / name

    def head(self, name: str, length: int = 1 << 16) -> bytes:
        """The first bytes of a file.

        Raises:
            UserError: It cannot be read.
        """
        try:
            check_is_file(self.path(name))
            with open(self.path(name), "rb") as file:
                return file.read(length)
        except OSError as error:
            raise UserError(f"cannot read {self.path(name)}: {error}") from error

    def text(self, name: str) -> str:
        """The text of a file.

        Raises:
            UserError: It cannot be read, or is no text.
        """
        try:
            check_is_file(self.path(name))
            return self.path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.path(name)}: {error}") from error

    def size(self, image: str) -> tuple[int, int] | None:
        """Width and height of an image as it is shown; None if it cannot be read."""
        return shown_size(self.path(image))

    def described(self) -> str:
        """What the folder has, in a line."""
        counts = Counter(suffix_of(name) or "no suffix" for name in self.files)
        listed = first_few((f"{count} of {suffix}" for suffix, count in counts.most_common()), 6)
        folders = first_few(dict.fromkeys(f"{parent_of(name)}/".lstrip("/") or "./" for name in self.files), 6)
        return f"files: {listed}; folders: {folders}" if self.files else "nothing"


def _files_below(folder: Path) -> Iterator[str]:
    for path in files_below(folder, lambda below: not below.name.startswith("__") and below.name != OURS):
        yield path.relative_to(folder).as_posix()


def shown_size(image: Path) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, turned by its EXIF tag; None if it cannot be read."""
    header = read_header(str(image))
    if header is None:
        return None
    return header.size[::-1] if header.orientation in SWAPS_SIDES else header.size


def suffix_of(name: str) -> str:
    """``.jpg`` of ``a/B.JPG``."""
    return PurePosixPath(name).suffix.lower()


def parent_of(name: str) -> str:
    """``a`` of ``a/b.jpg``; empty at the top."""
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else parent


def stem_of(name: str) -> str:
    """``a/b`` of ``a/b.jpg``."""
    return str(PurePosixPath(name).with_suffix(""))


def join_names(parent: str, name: str) -> str:
    """A name below a folder, ``..`` and ``.`` in it resolved."""
    return os.path.normpath(f"{parent}/{name}" if parent else name).replace("\\", "/")


def split_of(name: str) -> str:
    """The part that a path is of by its words, the last one that says it: ``val`` of ``images/val2017/a``."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


def split_of_folder(name: str) -> str:
    """The part that a file is of by the folders it lies in."""
    return split_of(parent_of(name))


def check_parts(found: Found) -> None:
    """Check that there is something to train on and something to evaluate on, and that every image is of a part.

    Raises:
        UserError: There is not, or some images are of no part.
    """
    counts = found.images()
    listed = ", ".join(f"{count} {split or 'of no part'}" for split, count in counts.items())
    advice = "say --val-share 0.1 to draw every tenth image for validation"
    if set(counts) == {""}:
        raise UserError(
            f"nothing parts the {counts['']} images of {found.folder} into training and validation: {advice}"
        )
    if counts[""]:
        raise UserError(
            f"folders and lists of {found.folder} part some images alone: {listed}. Put the others into "
            f"one of the parts (train, val, test), or {advice}"
        )
    if not counts["train"] or not counts["val"]:
        missing = "validation" if counts["train"] else "training"
        raise UserError(f"{found.folder} has no images for {missing} ({listed}): {advice}, or add a folder of them")
