"""Packs for mmengine's file client: ``data_root="pack://FOLDER"`` in any config of the toolboxes."""

from __future__ import annotations

import errno
import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

from eyetoy_mm.datasets.packs import SCHEME, Pack, locate


class PackBackend(BaseStorageBackend):
    """Read files of packs by their address; see :mod:`~eyetoy_mm.datasets.packs`.

    What a file client can write, this one cannot: a pack is made once, by ``eyetoy pack``.
    """

    def get(self, filepath: str | Path) -> bytes:
        """Content of a file.

        Raises:
            FileNotFoundError: The pack has none of that name.
        """
        pack, name = locate(str(filepath))
        index = pack.find(name)
        if index is None:
            raise FileNotFoundError(errno.ENOENT, f"no such file in the pack {pack.folder}", str(filepath))
        return pack.read(index)

    def get_text(self, filepath: str | Path, encoding: str = "utf-8") -> str:
        """Content of a text file."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        """Whether there is such a file or folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isdir(self, filepath: str | Path) -> bool:
        """Whether there is such a folder."""
        pack, name = locate(str(filepath))
        return bool(pack.below(name))

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is such a file."""
        pack, name = locate(str(filepath))
        return pack.find(name) is not None

    def join_path(self, filepath: str | Path, *filepaths: str | Path) -> str:
        """A path below a folder."""
        return posixpath.join(str(filepath), *map(str, filepaths))

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str]:
        """A copy on the disk, for what reads paths alone; it is there as long as the context."""
        content = self.get(filepath)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, os.path.basename(str(filepath)))
            path.write_bytes(content)
            yield str(path)

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Folders and files in a folder, as paths from there, hidden ones apart; as mmengine's other clients.

        Raises:
            TypeError: Folders are asked for, and a suffix.
        """
        if list_dir and suffix is not None:
            raise TypeError("`list_dir` should be False when `suffix` is not None")
        pack, folder = locate(str(dir_path))
        yield from _list(pack, folder, "", list_dir, list_file, suffix, recursive)


def _list(
    pack: Pack, folder: str, below: str, dirs: bool, files: bool, suffix: str | tuple[str, ...] | None, recursive: bool
) -> Iterator[str]:
    for name, is_folder in pack.entries(posixpath.join(folder, below).rstrip("/")):
        path = posixpath.join(below, name)
        if is_folder:
            if dirs:
                yield path
            if recursive:
                yield from _list(pack, folder, path, dirs, files, suffix, recursive)
        elif files and not name.startswith(".") and (suffix is None or name.endswith(suffix)):
            yield path


register_backend("pack", PackBackend, prefixes=SCHEME.removesuffix("://"), force=True)
