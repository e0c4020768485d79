"""Files that lists and annotations name, looked for, and lists of names read."""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def absent(paths: Sequence[str | Path]) -> list[str]:
    """Those that are no files: not there, folders, links to nothing or to themselves.

    Whole folders are listed at a time: asking for each file takes minutes on network disks.
    """
    named = [str(Path(path)) for path in paths]
    present = set(_files_in({os.path.dirname(path) or "." for path in named}))
    # Folders that cannot be listed, and disks that do not tell capitals apart, are asked for each.
    return [path for path in named if Path(path) not in present and not os.path.isfile(path)]


def names_in(folder: str | Path) -> list[str]:
    """Names of what is in a folder, in their order; none where there is no such folder."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def why_not_listed(error: OSError) -> str:
    """What is wrong with a folder that cannot be listed, and what to do.

    Args:
        error: What listing it raised.
    """
    path = Path(os.fsdecode(error.filename or ""))
    if error.errno == errno.ELOOP:
        link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), path)
        return f"{link} is a link that leads back to where it is; take it out"
    return f"{path} cannot be read: {error.strerror or error}"


def why_no_image(dataset: Any) -> str:
    """What to look at where a data set of the toolboxes has no image.

    Args:
        dataset: The data set, built or half built.
    """
    place = getattr(dataset, "ann_file", None) or getattr(dataset, "data_root", None)
    listed = f"{type(dataset).__name__} of {place}" if place else type(dataset).__name__
    return f"Check the files of {listed}, its classes (metainfo), filter_cfg and indices"


def odd_line(lines: Iterable[str]) -> str | None:
    """What a list of names has that nobody means, in words: a byte order mark, an empty line; None if nothing."""
    for number, line in enumerate(lines, 1):
        if line.startswith(codecs.BOM_UTF8.decode()):
            return "The list begins with a byte order mark; save it as UTF-8 without one"
        if not line.strip():
            return f"The list has an empty line, {number}; take it out"
    return None


def _files_in(folders: Iterable[str]) -> Iterable[Path]:
    for folder in folders:
        try:
            entries = list(os.scandir(folder))
        except OSError:  # there is none, or it cannot be listed
            continue
        yield from (Path(entry.path) for entry in entries if _is_file(entry))


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
