"""Data sets of millions of files in a few: plain tar shards and an index, from which any file is read by its path.

A pack is a folder with shards (``00000.tar``, ...), which every program that knows tar can open, and the index: all
names in the order of their bytes, and where each file lies. The index is mapped into memory, not read: processes of a
host share its pages, and none has a list of its own. A file is one read at a known place, so that samplers, shuffling
and a resume that is exact are those of a folder.

``pack://FOLDER/PATH`` is a file in it, for mmengine's file client and so for every data set of the toolboxes:
:mod:`~eyetoy_mm.datasets.pack_backend`.
"""

from __future__ import annotations

import bisect
import errno
import json
import operator
import os
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eyetoy_mm.errors import UserError, first_few

SCHEME = "pack://"
DESCRIPTION, NAMES, ENDS, PLACES = "pack.json", "names.npy", "ends.npy", "places.npy"
VERSION = 1
PLACE = np.dtype([("shard", "<u4"), ("crc", "<u4"), ("start", "<u8"), ("size", "<u8")])
_AFTER = b"0"  # the byte that follows / in order: what is in a folder comes before
_OPEN_SHARDS = 128  # of a process; many systems allow it 1024 files


class Pack:
    """The files of a pack, by number in the order of their names.

    Args:
        folder: Where it is.

    Raises:
        UserError: There is no whole pack.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        description = self._description()
        self.shards: list[tuple[str, int]] = description["shards"]
        if outside := [name for name, _ in self.shards if os.path.basename(name) != name]:
            raise UserError(f"{self.folder / DESCRIPTION} names shards outside of the pack: {first_few(outside)}")
        self._names = self._array(NAMES, np.dtype("u1"))
        self._ends = self._array(ENDS, np.dtype("<u8"))
        self._places = self._array(PLACES, PLACE)
        if not len(self._ends) == len(self._places) == description["files"] or self._end(-1) != len(self._names):
            raise UserError(f"the index of the pack {folder} is not whole: copy {NAMES}, {ENDS} and {PLACES} again")
        self._shard = lru_cache(_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return len(self._ends)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (str(self.folder),)  # a process that is given one maps the files itself

    def name(self, index: int) -> str:
        """Path of a file in the pack."""
        return os.fsdecode(self._name(index))

    def find(self, name: str) -> int | None:
        """Number of a file; None if there is none."""
        key = os.fsencode(name)
        index = self._first_from(key)
        return index if index < len(self) and self._name(index) == key else None

    def below(self, folder: str) -> range:
        """Numbers of all files below a folder, "" for the whole pack; none where there is no such folder."""
        if not folder:
            return range(len(self))
        prefix = os.fsencode(folder)
        return range(self._first_from(prefix + b"/"), self._first_from(prefix + _AFTER))

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """What is right in a folder: names, and whether each is a folder. Files of those are not looked at."""
        files, start = self.below(folder), len(os.fsencode(folder)) + bool(folder)
        index = files.start
        while index < files.stop:
            name, is_folder, _ = self._name(index)[start:].partition(b"/")
            yield os.fsdecode(name), bool(is_folder)
            index = self._first_from(self._name(index)[: start + len(name)] + _AFTER) if is_folder else index + 1

    def with_suffix(self, files: range, suffixes: Sequence[str]) -> range | np.ndarray:
        """Those of some files that have one of some suffixes, whatever their case; the range itself if all have."""
        ends = self._ends[files.start : files.stop].astype(np.int64)
        found = np.zeros(len(ends), dtype=bool)
        for suffix in map(os.fsencode, suffixes):
            matches = np.ones(len(ends), dtype=bool)
            for back, byte in enumerate(reversed(suffix.lower()), start=1):
                last = self._names[np.maximum(ends - back, 0)]
                matches &= np.where((last >= ord("A")) & (last <= ord("Z")), last | 32, last) == byte
            found |= matches
            if found.all():  # nearly always, by one suffix
                return files
        return files.start + np.flatnonzero(found)

    def read(self, index: int) -> bytes:
        """Content of a file.

        Raises:
            OSError: Its shard is missing, cut off, or has other bytes than were packed.
        """
        shard, crc, start, size = self._places[index].item()
        if shard >= len(self.shards) or start + size > self.shards[shard][1]:
            raise self._error(index, f"{PLACES} has it beyond the shards of {DESCRIPTION}: copy all of the pack again")
        content = self._shard(shard).read(start, size)
        if zlib.crc32(content) != crc:
            wrong = "are not those that were packed; copy that shard again, and the index"
            raise self._error(index, f"its bytes in {self.shards[shard][0]} {wrong}")
        return content

    def _error(self, index: int, text: str) -> OSError:
        return OSError(errno.EIO, text, f"{SCHEME}{self.folder}/{self.name(index)}")

    def _end(self, index: int) -> int:
        return int(self._ends[index]) if len(self._ends) else 0

    def _name(self, index: int) -> bytes:
        return self._names[self._end(index - 1) if index else 0 : self._end(index)].tobytes()

    def _first_from(self, key: bytes) -> int:
        return bisect.bisect_left(range(len(self)), key, key=self._name)

    def _open(self, shard: int) -> _Shard:
        name, size = self.shards[shard]
        return _Shard(self.folder / name, size)

    def _description(self) -> dict:
        path = self.folder / DESCRIPTION
        try:
            description = json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(
                f"{self.folder} is no pack: it has no {DESCRIPTION}, which `eyetoy pack` writes at its end"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
        if not isinstance(description, dict) or description.get("version") != VERSION:
            raise UserError(f"{path} is not of a pack of version {VERSION}, the one that is known here")
        try:
            shards = [(os.fspath(shard["name"]), operator.index(shard["bytes"])) for shard in description["shards"]]
            return dict(files=operator.index(description["files"]), shards=shards)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} does not describe a pack ({error}): copy it again") from error

    def _array(self, name: str, dtype: np.dtype) -> np.ndarray:
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode="r") if path.stat().st_size > 128 else np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read {path}, of the index of a pack: {error}. Copy it again") from error
        if array.dtype != dtype or array.ndim != 1:
            raise UserError(f"{path} is not of a pack of version {VERSION}: {array.dtype}, {array.ndim} dimensions")
        return np.asarray(array)


class _Shard:
    """An open shard; processes that are forked may read it side by side, because nothing is sought."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        found = os.fstat(self.file).st_size
        if found != size:
            raise OSError(errno.EIO, f"it has {found} bytes, and {size} were packed; copy it again", str(path))

    def read(self, start: int, size: int) -> bytes:
        parts, end = [], start + size
        while start < end:
            part = os.pread(self.file, end - start, start)
            if not part:
                raise OSError(errno.EIO, "it ends before the file does; copy it again", str(self.path))
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


@lru_cache(None)
def open_pack(folder: str) -> Pack:
    """The pack in a folder, opened once in a process."""
    return Pack(folder)


def locate(address: str) -> tuple[Pack, str]:
    """The pack of an address, and the path in it.

    Args:
        address: ``pack://FOLDER/PATH``.

    Raises:
        UserError: No folder on the way is a pack.
    """
    path = os.path.normpath(address.removeprefix(SCHEME))
    folder = _folder_of(os.path.dirname(path)) or _folder_of(path)
    if folder is None:
        raise UserError(
            f"{address}: no folder of this path is a pack, which `eyetoy pack` makes (it has {DESCRIPTION})"
        )
    name = os.path.relpath(path, folder).replace(os.sep, "/")
    return open_pack(folder), "" if name == "." else name


@lru_cache(1 << 16)
def _folder_of(path: str) -> str | None:
    """The pack that a path is in, itself included. Folders of images are few, and asked for again and again."""
    if os.path.isfile(os.path.join(path, DESCRIPTION)):
        return path
    parent = os.path.dirname(path)
    return None if parent == path else _folder_of(parent)


def forget_packs() -> None:
    """Look at the disk again: a pack was made."""
    open_pack.cache_clear()
    _folder_of.cache_clear()


class PackedImages(Sequence[dict]):
    """Images of class folders in a pack and their labels, as mmpretrain has them, each made when it is asked for.

    Args:
        root: Address of the folder of the class folders.
        classes: Their names, in the order of labels.
        suffixes: What an image ends with.

    Raises:
        UserError: A class has no image.
    """

    def __init__(self, root: str, classes: Sequence[str], suffixes: Sequence[str]) -> None:
        self.pack, folder = locate(root)
        self.root = root.rstrip("/")
        self._strip = len(folder) + bool(folder)
        self._files = [
            self.pack.with_suffix(self.pack.below(posixpath.join(folder, name)), suffixes) for name in classes
        ]
        for name, files in zip(classes, self._files):
            if not len(files):
                raise UserError(f"the class {name!r} has no image in {root} (suffixes {', '.join(suffixes)})")
        self._ends = np.cumsum([len(files) for files in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # from the end, too, and no further
        label = int(np.searchsorted(self._ends, index, side="right"))
        files = self._files[label]
        name = self.pack.name(int(files[index - int(self._ends[label])]))
        return dict(img_path=f"{self.root}/{name[self._strip :]}", gt_label=label)
