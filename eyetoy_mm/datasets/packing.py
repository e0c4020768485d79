"""Packs written: from a folder of files, or as an index of tar files that are there."""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedWriter
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eyetoy_mm.datasets.files import check_is_file, is_so
from eyetoy_mm.datasets.packs import DESCRIPTION, ENDS, NAMES, PLACE, PLACES, VERSION, Pack, forget_packs
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.whole_files import write_whole

_BLOCK = 512  # of tar
_PIECE = 1 << 20  # bytes that are read at once


class _Index:
    """Names and places of what is packed; 24 bytes and the name for each file."""

    def __init__(self) -> None:
        self.names, self.ends = bytearray(), array("Q")
        self._last, self._in_order = b"", True
        self.shards, self.crcs, self.starts, self.sizes = array("I"), array("I"), array("Q"), array("Q")

    def add(self, name: bytes, shard: int, crc: int, start: int, size: int) -> None:
        self._in_order &= name > self._last
        self._last = name
        self.names += name
        self.ends.append(len(self.names))
        for column, value in ((self.shards, shard), (self.crcs, crc), (self.starts, start), (self.sizes, size)):
            column.append(value)

    def write(self, folder: Path, shards: list[tuple[str, int]]) -> None:
        """Write the index, and last the file that says that it is whole.

        Raises:
            UserError: Two files have one name.
        """
        places = np.empty(len(self.ends), dtype=PLACE)
        for key, column in zip(("shard", "crc", "start", "size"), (self.shards, self.crcs, self.starts, self.sizes)):
            places[key] = column
        names, ends, places = self._sorted(places)
        np.save(folder / NAMES, names)
        np.save(folder / ENDS, ends)
        np.save(folder / PLACES, places)
        described = dict(
            version=VERSION,
            files=len(ends),
            bytes=int(places["size"].sum()),
            shards=[dict(name=name, bytes=size) for name, size in shards],
        )
        write_whole(folder / DESCRIPTION, json.dumps(described, indent=1) + "\n")
        forget_packs()

    def _sorted(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Names, their ends and places in the order of names, as folders are walked; others may differ."""
        names, ends = np.frombuffer(self.names, np.uint8), np.frombuffer(self.ends, np.uint64)
        if self._in_order:
            return names, ends, places
        split = [bytes(self.names[start:end]) for start, end in zip([0, *self.ends], self.ends)]
        order = sorted(range(len(split)), key=split.__getitem__)
        split = [split[index] for index in order]
        twice = [os.fsdecode(first) for first, second in pairwise(split) if first == second]
        if twice:
            raise UserError(f"these names are in the shards more than once: {first_few(twice)}")
        ends = np.cumsum(np.fromiter(map(len, split), np.uint64, len(split)), dtype=np.uint64)
        return np.frombuffer(b"".join(split), np.uint8), ends, places[order]


def pack_folder(source: Path, target: Path, shard_size: int = 4 << 30, jobs: int = 8) -> Pack:
    """Pack all files below a folder, hidden ones (``.name``) apart, as every reader of folders leaves them out.

    The shards are plain tar files. Equal folders give equal bytes.

    Args:
        source: The folder; links are followed.
        target: The folder of the pack; it is made.
        shard_size: Bytes at which a shard is closed and the next begun.
        jobs: Files that are read at the same time; where they lie on a network, each is waited for.

    Returns:
        The pack.

    Raises:
        UserError: There is no such folder or no file in it, the target is not empty or below the source, a folder
            contains itself, or a file cannot be read.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source} to pack")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"the pack {target} would be in the folder {source} that is packed; choose another place")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(
            f"{target} is not empty. A pack is made anew: choose another folder, or remove it (without {DESCRIPTION} "
            "it is what an interrupted `eyetoy pack` left)"
        )
    target.mkdir(parents=True, exist_ok=True)
    index, shards = _Index(), _Shards(target, shard_size)
    try:
        for name, content in _contents(source, jobs):
            shard, start = shards.add(name, content)
            index.add(os.fsencode(name), shard, zlib.crc32(content), start, len(content))
    finally:
        sizes = shards.close()
    if not index.ends:
        raise UserError(f"{source} has no files to pack")
    index.write(target, sizes)
    return Pack(target)


def index_tars(folder: Path) -> Pack:
    """Make a pack of a folder with uncompressed tar files, which stay as they are; the index is written beside them.

    Files keep their names; those that are in no folder get the tar's name for one, which is the class where each class
    is a tar, as ImageNet is distributed.

    Args:
        folder: Where they are.

    Returns:
        The pack.

    Raises:
        UserError: There is no tar file, one is compressed, cut off or damaged, has links or names that lead outside,
            or two files have one name.
    """
    paths = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    if not paths:
        raise UserError(f"{folder} has no files that end in .tar")
    (folder / DESCRIPTION).unlink(missing_ok=True)
    index = _Index()
    for number, path in enumerate(paths):
        try:
            _index_tar(index, number, path)
        # MemoryError, OverflowError, ValueError: of numbers in headers that the tar file does not hold to
        except (tarfile.TarError, MemoryError, OverflowError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise UserError(
                f"cannot index {path}: {reason}. It must be a whole, uncompressed tar file: what is compressed cannot "
                "be read at any place"
            ) from error
    if not index.ends:
        raise UserError(f"the tar files in {folder} hold no files")
    index.write(folder, [(path.name, path.stat().st_size) for path in paths])
    return Pack(folder)


def _index_tar(index: _Index, number: int, path: Path) -> None:
    """Add the files of a tar file, whose headers may say what is not so.

    Raises:
        UserError: A member lies or leads outside of the tar file, has its bytes elsewhere, or the end is missing.
        tarfile.TarError: It is no tar file.
    """
    total, end = path.stat().st_size, 0
    with tarfile.open(path, "r:") as tar, path.open("rb") as file:
        for member in tar:
            if member.size < 0 or member.offset_data + member.size * member.isreg() > total:
                raise UserError(
                    f"{path}: {member.name} has {member.size} bytes by its header, which goes on beyond the {total} of "
                    "the tar file: it was cut off, or made so. Copy it again"
                )
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK * member.isreg()
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UserError(
                    f"{path}: {member.name} is {_kind(member)}, which has no bytes there in one piece. Make the tar "
                    "file with --dereference --hard-dereference and without --sparse"
                )
            name = _name_in_pack(path, member.name)
            if not any(part.startswith(".") for part in name.split("/")):
                crc = _checksum(file, member.offset_data, member.size)
                index.add(os.fsencode(name), number, crc, member.offset_data, member.size)
        _check_end(path, file, end)


def _kind(member: tarfile.TarInfo) -> str:
    if member.islnk() or member.issym():
        return f"a link to {member.linkname}"
    return "a sparse file" if member.issparse() else "neither a file nor a folder"


def _name_in_pack(path: Path, name: str) -> str:
    """The name of a member as packs have it; ``./`` and ``//`` mean nothing."""
    parts = [part for part in name.split("/") if part != "."]
    if name.startswith("/") or ".." in parts:
        raise UserError(f"{path} names a file outside of the pack: {name}. If you do not know why, do not use it")
    return "/".join(filter(None, parts)) if len(parts) > 1 else f"{path.stem}/{name}"


def _checksum(file: BinaryIO, start: int, size: int) -> int:
    file.seek(start)
    crc = 0
    while size > 0:
        part = file.read(min(size, _PIECE))
        crc, size = zlib.crc32(part, crc), size - (len(part) or size)
    return crc


def _check_end(path: Path, file: BinaryIO, end: int) -> None:
    """A tar file that stops between two files is cut off; so is one whose next header is no header, to tarfile."""
    file.seek(end)
    block = file.read(_BLOCK)
    if not block:
        raise UserError(
            f"{path} ends without the end of a tar file: it was cut off, copy it again. If it is whole as it is, add "
            f"the end: truncate --size=+{2 * _BLOCK} {path}"
        )
    while block:
        if rest := block.lstrip(b"\0"):
            raise UserError(
                f"{path} is damaged from byte {end + len(block) - len(rest)} on, or two tar files joined: what comes "
                "there is no file of it. Copy it again, or index joined ones apart"
            )
        end, block = end + len(block), file.read(_PIECE)


def verify(pack: Pack) -> list[str]:
    """Read every file of a pack; what is wrong with which, in their order."""
    wrong = []
    for number in range(len(pack)):
        try:
            pack.read(number)
        except OSError as error:
            wrong.append(f"{pack.name(number)}: {error.strerror}")
    return wrong


class _Shards:
    """Tar files of about one size, written one after the other."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.file: BufferedWriter | None = None
        self.done: list[tuple[str, int]] = []

    def add(self, name: str, content: bytes) -> tuple[int, int]:
        """Append a file; the number of its shard, and where its content begins there."""
        if self.file is None:
            self.file = open(self.folder / f"{len(self.done):05}.tar", "wb")  # noqa: SIM115 - closed when it is full
        member = tarfile.TarInfo(name)
        member.size = len(content)
        # Owner, time and mode are those of TarInfo: the same for every file, on every machine.
        self.file.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        place = len(self.done), self.file.tell()
        self.file.write(content)
        self.file.write(bytes(-len(content) % _BLOCK))
        if self.file.tell() >= self.size:
            self._finish()
        return place

    def close(self) -> list[tuple[str, int]]:
        """Finish the last one; names and sizes of all."""
        self._finish()
        return self.done

    def _finish(self) -> None:
        if self.file is None:
            return
        self.file.write(bytes(2 * _BLOCK))  # the end of an archive
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.done.append((os.path.basename(self.file.name), os.path.getsize(self.file.name)))
        self.file = None


def _contents(folder: Path, jobs: int) -> Iterator[tuple[str, bytes]]:
    """Every file with its content, in the order of their names, some read ahead."""
    waiting: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for name in _walk(folder, "", ()):
            waiting.append((name, pool.submit(_read, folder / name)))
            if len(waiting) > 2 * jobs:
                yield _wait(*waiting.popleft())
        while waiting:
            yield _wait(*waiting.popleft())


def _read(path: Path) -> bytes:
    check_is_file(path)
    return path.read_bytes()


def _wait(name: str, content: Future[bytes]) -> tuple[str, bytes]:
    try:
        return name, content.result()
    except OSError as error:
        raise UserError(f"cannot read {error.filename or name}: {error.strerror}") from error


def _walk(root: Path, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Paths of all files in the order of their bytes, a folder held at a time."""
    folder = root / below
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise UserError(f"the folder {folder} is a link to one that it is in; remove it")
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    found = [(os.fsencode(entry.name) + b"/" * is_so(entry.is_dir), entry.name) for entry in entries]
    for key, name in sorted(found):  # a folder is in its place as its files are: after "a-b.jpg" if it is "a"
        path = f"{below}/{name}".lstrip("/")
        if key.endswith(b"/"):
            yield from _walk(root, path, (*above, here))
        else:
            yield path
