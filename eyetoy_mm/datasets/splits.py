"""Images in one folder per class, and their split into training and validation lists."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from eyetoy_mm.datasets.files import files_below, is_so
from eyetoy_mm.errors import UserError, counted, first_few

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Images as well, of phones, cameras and the web, which OpenCV reads in no build, or not in every one.
_OTHER_SUFFIXES = (
    *(".avif", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".pnm", ".psd", ".svg"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
)

Split = Mapping[str, list[str]]  # by class, paths from the folder of the classes


def class_names(root: Path) -> list[str]:
    """The sorted names of the class folders in ``root``, hidden ones apart.

    Raises:
        UserError: There is no such folder, or it has none.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if is_so(entry.is_dir))
    if not names:
        raise UserError(f"{root} has no class folders; it must have one folder of images for each class")
    return names


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix, of a format that is read or not."""
    return PurePosixPath(name).suffix.lower() in (*IMAGE_SUFFIXES, *_OTHER_SUFFIXES)


def other_images(names: Iterable[str]) -> list[str]:
    """Those of some files that are images, but of no format of :data:`IMAGE_SUFFIXES`."""
    return [name for name in names if PurePosixPath(name).suffix.lower() in _OTHER_SUFFIXES]


def told_of_others(others: Iterable[str]) -> str:
    """What to say of images that :func:`other_images` found, and what to do about them."""
    counts = Counter(PurePosixPath(name).suffix.lower() for name in others)
    listed = ", ".join(f"{count:,} of {suffix}" for suffix, count in counts.most_common())
    return (
        f"{counted(counts.total(), 'image')} in formats that are not read ({listed}): convert to JPEG or PNG, as "
        f"ImageMagick's `mogrify -format png *{counts.most_common(1)[0][0]}` does"
    )


def check_lines(lines: Iterable[str]) -> None:
    """Check that names of files, or what begins with them, can stand in a list, one a line.

    Raises:
        UserError: Some cannot.
    """
    unreadable = [line for line in lines if line.strip() != line or len(line.splitlines()) != 1 or not _is_text(line)]
    if unreadable:  # a name with a line of its own in it could list any file
        raise UserError(
            f"these names cannot stand in a list, one a line: {first_few(map(repr, unreadable))}. Rename them: no line "
            "breaks, no blanks at either end, in UTF-8"
        )


def _is_text(name: str) -> bool:
    """Whether a name is more than bytes, as those of old disks and archives may be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def class_images(root: Path, name: str) -> list[str]:
    """The sorted images of a class at any depth, as paths from ``root``; hidden ones and other suffixes are left out.

    Raises:
        UserError: There is no such folder, or no image in it.
    """
    folder = root / name
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder} for the class {name!r}; {root} has {first_few(class_names(root), 8)}"
        )
    files = [path.relative_to(root).as_posix() for path in files_below(folder)]
    images = [file for file in files if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES]
    check_lines(images)
    if not images:
        others = other_images(files)
        there = f": it has {told_of_others(others)}" if others else "; remove the folder, or exclude the class"
        raise UserError(f"the class {name!r} has no image in {folder} (suffixes {', '.join(IMAGE_SUFFIXES)}){there}")
    return sorted(images)


def split_classes(
    root: Path, train: float, val: int | None = None, exclude: Collection[str] = (), seed: int = 0
) -> tuple[Split, Split]:
    """Draw training and validation images of each class.

    A class' draw depends on the seed and its name alone, not on the other classes.

    Args:
        root: The folder with one folder per class.
        train: Training images of each class, as a whole number from 1 on, or as a fraction of its images.
        val: Validation images of each class at most; None takes all that are left.
        exclude: Classes to leave out.
        seed: Of the draw.

    Raises:
        UserError: An unknown class to leave out, fewer than two classes, or a class with too few images.
    """
    if not (0 < train < 1 or (train >= 1 and float(train).is_integer())):
        raise UserError(f"training images of a class must be a whole number or a fraction between 0 and 1, got {train}")
    if val is not None and val < 1:
        raise UserError(f"validation images of a class must be at least 1, got {val}")
    names = class_names(root)
    unknown = sorted(set(exclude) - set(names))
    if unknown:
        raise UserError(
            f"cannot exclude {', '.join(unknown)}: no such class in {root}, which has {first_few(names, 8)}"
        )
    names = [name for name in names if name not in exclude]
    if len(names) < 2:
        raise UserError(f"a classifier needs two classes, but {root} leaves {first_few(names, 8) or 'none'}")
    check_lines(names)
    images = {name: class_images(root, name) for name in names}
    if train >= 1:
        counts = dict.fromkeys(names, int(train))
    else:  # one image at least for either list
        counts = {name: max(1, min(round(train * len(images[name])), len(images[name]) - 1)) for name in names}
    short = [f"{name} ({len(images[name])})" for name in names if len(images[name]) <= counts[name]]
    if short:
        need = max(2, int(train) + 1)
        raise UserError(f"each class needs {need} images, one of them for validation; too few: {first_few(short, 8)}")
    first, second = {}, {}
    for name in names:
        drawn = random.Random(f"{seed} {name}").sample(images[name], len(images[name]))
        stop = None if val is None else counts[name] + val
        first[name], second[name] = sorted(drawn[: counts[name]]), sorted(drawn[counts[name] : stop])
    return first, second


def write_split(folder: Path, train: Split, val: Split) -> None:
    """Write ``classes.txt``, and ``train.txt`` and ``val.txt`` with a path and a label a line, as mmpretrain reads.

    Raises:
        UserError: The folder cannot be written.
    """
    texts = {"classes.txt": "".join(f"{name}\n" for name in train)}
    for name, split in (("train.txt", train), ("val.txt", val)):
        texts[name] = "".join(f"{path} {label}\n" for label, paths in enumerate(split.values()) for path in paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the lists into {folder}: {error}; choose another folder") from error
