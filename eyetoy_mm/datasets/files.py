"""Files that lists and annotations name, looked for, and lists of names read."""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from eyetoy_mm.errors import UserError


def absent(paths: Sequence[str | Path]) -> list[str]:
    """Those that are no files: not there, folders, links to nothing or to themselves.

    Whole folders are listed at a time: asking for each file takes minutes on network disks.
    """
    named = [str(Path(path)) for path in paths]
    present = set(_files_in({os.path.dirname(path) or "." for path in named}))
    # Folders that cannot be listed, and disks that do not tell capitals apart, are asked for each.
    return [path for path in named if Path(path) not in present and not os.path.isfile(path)]


def check_is_file(path: str | Path) -> None:
    """Refuse what would be read without end, or waited for: devices and pipes.

    Raises:
        OSError: It is one.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))


def names_in(folder: str | Path) -> list[str]:
    """Names of what is in a folder, in their order; none where there is no such folder."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def files_below(folder: str | Path, enters: Callable[[Path], bool] = lambda folder: True) -> Iterator[Path]:
    """Everything at any depth that is no folder, in order, hidden things apart.

    Links to folders are followed, but for those that lead back to where they are; links to nothing are among the files.

    Args:
        folder: Where to begin.
        enters: Whether a folder below it is looked into.

    Raises:
        UserError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(why_not_listed(error)) from error

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(
            name for name in folders
            if not name.startswith(".") and not _leads_back(here / name) and enters(here / name)
        )  # fmt: skip
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that it is in, be it by the way of other links."""
    if not folder.is_symlink():
        return False
    target = os.path.realpath(folder)
    return any(Path(os.path.realpath(above)).is_relative_to(target) for above in folder.absolute().parents)


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


def why_missing(name: str, folder: Path, what: str) -> str:
    """What is wrong with the name of a file that is not there, if that can be told: a sentence and a blank, or nothing.

    Args:
        name: As it is written.
        folder: Where it was looked for.
        what: What the name is called, for the message: ``file_name``, ``path``.
    """
    said = f"The {what} {name!r}"
    if "://" in name:
        return f"{said} is an address; download the images and write their names. "
    if "\\" in name:
        return f"{said} has the backslashes of Windows; write / for them. "
    for plain, told in (
        (name.strip(" \t\"'"), "has blanks or quotes at its ends"),
        (unquote(name), "is percent-encoded"),
        (name.split(" ")[0], "goes on behind a blank"),
    ):
        if plain != name and (folder / plain).is_file():
            return f"{said} {told}; the file is {plain!r}. "
    if (folder / PureWindowsPath(name).name).is_file():
        last = PureWindowsPath(name).name
        return f"{said} has a folder, but {last} lies in {folder} itself; shorten {what} or data_prefix. "
    path = folder / name
    if os.path.lexists(path):
        return f"{path} is {'a folder' if path.is_dir() else 'a link that leads to no file'}. "
    alike = [other for other in names_in(path.parent) if Path(other).stem.casefold() == path.stem.casefold()]
    if alike:
        return f"{said} is {alike[0]!r} on disk; make them the same. "
    return f"There is no folder {path.parent}. " if not path.parent.is_dir() else ""


def _files_in(folders: Iterable[str]) -> Iterable[Path]:
    for folder in folders:
        try:
            entries = list(os.scandir(folder))
        except OSError:  # there is none, or it cannot be listed
            continue
        yield from (Path(entry.path) for entry in entries if is_so(entry.is_file))


def is_so(asked: Callable[[], bool]) -> bool:
    """Whether an entry of a folder is what is asked, ``entry.is_file``; links to themselves are nothing."""
    try:
        return asked()
    except OSError:
        return False


def spelt_alike(name: str) -> str:
    """A name without what people write differently: capitals, blanks, hyphens."""
    return "".join(character for character in name.casefold() if character.isalnum()) or name
