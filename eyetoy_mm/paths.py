"""Where files are: those of the package, however it is installed, and those on other storage than a disk."""

from __future__ import annotations

import os
from pathlib import Path

from eyetoy_mm.errors import UserError

EMBEDDED = ("data/sample", "data/nuclei")  # images that come with the package
_PACKAGE = Path(__file__).resolve().parent


def package_file(name: str) -> Path:
    """A file or folder that comes with the package: ``configs``, ``data/sample``, ``model-index.yml``.

    A wheel has copies in ``eyetoy_mm/.mim``, an editable install links there, a bare checkout the files themselves.

    Args:
        name: Its path in the repository.

    Raises:
        UserError: It is not there.
    """
    for folder in (_PACKAGE / ".mim", _PACKAGE.parent):
        if (folder / name).exists():
            return (folder / name).resolve()
    raise UserError(f"eyetoy_mm comes without {name}; looked in {_PACKAGE / '.mim'} and beside it. Install it again")


def take_name(target: Path, used: set[Path]) -> Path:
    """A name of results that no other has: of ``a.jpg`` beside ``a.png``, the second gets ``a_``.

    Args:
        target: A path without suffix.
        used: Those that are taken; this one is added.
    """
    while target in used:
        target = target.with_name(f"{target.name}_")
    used.add(target)
    return target


def check_folder(option: str, path: str | Path) -> None:
    """Check that files can be written into a folder, which need not be there yet.

    Args:
        option: What names it, for the message.
        path: The folder.

    Raises:
        UserError: It, or what it would be in, is a file or cannot be written in.
    """
    for part in (Path(path), *Path(path).parents):
        if part.exists() and not part.is_dir():
            raise UserError(f"{option} {path} should be a folder, and {part} is a file")
    there = next(part for part in (Path(path).absolute(), *Path(path).absolute().parents) if part.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path} cannot be written: {there} is read-only for this user")


def is_address(path: str | Path) -> bool:
    """Whether a path has a scheme, as ``s3://bucket/photos``: a matter of mmengine's file client, not of the disk."""
    return "://" in str(path)


def join(root: str | Path, path: str | Path) -> str:
    """A path below a root, each a path on a disk or an address; one that is whole by itself stays as it is."""
    if is_address(path):
        return str(path)
    if not is_address(root) or Path(path).is_absolute():
        return str(Path(root, path))
    return f"{str(root).rstrip('/')}/{path}" if str(path) else str(root)
