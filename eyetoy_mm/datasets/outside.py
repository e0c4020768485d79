"""Files that annotations name outside of the folder of their data set.

Allowed, and told: labelme2coco and others write absolute paths, and annotations beside the images start with ``..``. A
name can lead to any file of the machine, though. Such a file is read as an image and nothing else, and what is written
never goes where a name leads: pictures are named after the last part of it, below the folder that was asked for. Links
in the folder are taken as the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.paths import is_address


def find_outside(listed_in: str | os.PathLike[str], folder: str, names: Iterable[str]) -> Finding | None:
    """What is named outside of a folder; None if nothing is.

    Args:
        listed_in: The file that names them, for the message; "" where the message will begin with it.
        folder: The folder that the names start from.
        names: Paths, as they are written there.
    """
    if is_address(folder):
        return None
    root = os.path.abspath(folder)
    outside = [name for name in names if _may_leave(name) and not _is_below(os.path.join(root, name), root)]
    if not outside:
        return None
    message = (
        f"{listed_in} names files outside of {folder}, which are read from where they are. If these are not your own "
        "paths, do not use the data set"
    )
    return Finding("outside of the data folder", message.lstrip(), tuple(outside[:5]), len(outside), fatal=False)


def _may_leave(name: str) -> bool:
    """Quick, for files of a million images."""
    return ".." in name or os.path.isabs(name) or is_address(name)


def _is_below(path: str, root: str) -> bool:
    return not is_address(path) and os.path.commonpath([os.path.normpath(path), root]) == root
