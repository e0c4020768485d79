"""Tar files and packs that say what is not so: cut off, damaged, joined, or made to lead elsewhere.

A case makes the files in an empty folder, and indexes them or reads all of the pack as a user would.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eyetoy_mm.datasets.packing import index_tars, pack_folder, verify
from eyetoy_mm.datasets.packs import Pack

IMAGE = bytes(range(256)) * 3


def header(name: str, size: int = len(IMAGE), **fields: Any) -> bytes:
    """The block that tells of a member, true or not."""
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def file(name: str) -> bytes:
    """A member that is what it says."""
    return header(name) + IMAGE + bytes(-len(IMAGE) % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)
MIDDLE = len(file("x"))


def indexed(content: bytes, folder: Path) -> Pack:
    """``eyetoy pack --index`` of a folder with one tar file."""
    (folder / "shard.tar").write_bytes(content)
    return index_tars(folder)


def _packed(folder: Path, name: str = "pack", images: int = 2) -> Path:
    """A sound pack."""
    source = folder / f"{name}-source" / "cat"
    source.mkdir(parents=True)
    for number in range(images):
        (source / f"{number}.jpg").write_bytes(IMAGE[number:])
    return pack_folder(source.parent, folder / name).folder


def _read(pack: Path) -> str:
    """What ``eyetoy pack --verify`` says of a pack."""
    return "; ".join(verify(Pack(pack)))


def index_of_another(folder: Path) -> str:
    """The places of a pack with as many files, in other shards."""
    pack, other = _packed(folder), _packed(folder, "other")
    places = np.load(other / "places.npy")
    places["start"] += 10**6
    np.save(pack / "places.npy", places)
    return _read(pack)


def shard_of_another(folder: Path) -> str:
    """A shard of the same length, with other files."""
    pack = _packed(folder)
    shard = pack / "00000.tar"
    shard.write_bytes(shard.read_bytes().replace(IMAGE, IMAGE[::-1]))
    return _read(pack)


def described_as(change: dict[str, Any], folder: Path) -> str:
    """A ``pack.json`` that was changed."""
    path = _packed(folder) / "pack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return _read(path.parent)


def empty_index(folder: Path) -> str:
    """A file of the index that was created and never written."""
    pack = _packed(folder)
    (pack / "ends.npy").write_bytes(b"")
    return _read(pack)


def _sparse(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/a.jpg")
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "900", "GNU.sparse.name": "cat/a.jpg"}
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return buffer.getvalue()


CONTENTS: dict[str, bytes] = {
    "a member larger than its tar file": file("cat/a.jpg") + header("cat/b.jpg", 10**15) + END,
    "a member of less than no bytes": header("cat/a.jpg", -512) + END,
    "a folder of less than no bytes": header("cat", -1024, type=tarfile.DIRTYPE) + END,
    "a long name without end": header("././@LongLink", 10**17, type=tarfile.GNUTYPE_LONGNAME) + file("x") + END,
    "a name that leads outside": file("../../etc/cron.d/job") + END,
    "a name from the root": file("/etc/passwd") + END,
    "a link to another file": header("cat/a.jpg", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
    "a hard link": file("cat/a.jpg") + header("cat/b.jpg", 0, type=tarfile.LNKTYPE, linkname="cat/a.jpg") + END,
    "a device": header("cat/a.jpg", 0, type=tarfile.CHRTYPE) + END,
    "a name that is there twice": file("cat/a.jpg") + file("cat/b.jpg") + file("cat/./a.jpg") + END,
    "a tar file cut off in a file": (file("cat/a.jpg") + file("cat/b.jpg"))[: MIDDLE + 600],
    "a tar file cut off between two files": file("cat/a.jpg") + file("cat/b.jpg"),
    "a header that was overwritten": file("cat/a.jpg") + b"\xff" * 512 + file("cat/c.jpg") + END,
    "two tar files joined": (file("cat/a.jpg") + END) + (file("cat/b.jpg") + END),
    "a tar file without a file": END,
}

CASES: dict[str, Callable[[Path], Any]] = {
    **{name: partial(indexed, content) for name, content in CONTENTS.items()},
    "a sparse file": lambda folder: indexed(_sparse(folder), folder),
    "places of another pack": index_of_another,
    "a shard of another pack": shard_of_another,
    "a pack.json without shards": partial(described_as, dict(shards=None)),
    "a pack.json with shards that are numbers": partial(described_as, dict(shards=[dict(name=3, bytes=4)])),
    "a pack.json of more files": partial(described_as, dict(files=3)),
    "an index that was never written": empty_index,
}
