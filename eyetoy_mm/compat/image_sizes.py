"""Trap: images of any size are decoded, whatever memory that takes.

What breaks: a PNG of 50,000 x 50,000 equal pixels is a file of a few megabytes and 7.5 GB decoded, and several times
that in a pipeline. OpenCV refuses from 2**30 pixels on, in its own words and without the file's name; below that, the
process is killed by the machine, in training by and by, in the middle of a night.

What we do: mmcv's `imfrombytes`, through which all three toolboxes load images and masks, reads the size from the
header first and refuses from `EYETOY_MAX_IMAGE_PIXELS` on, by default the number where Pillow does. `imread` and the
transforms that load add the name of the file.

Delete this file when the supported mmcv has a limit.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method
from eyetoy_mm.compat.data_files import DataFileError, named_in_refusals

__all__ = ["ImageTooLargeError", "apply", "check_size", "needed", "without_pillows_limit"]

LIMIT = 178_956_970
"""Pixels; Pillow's, which takes it for an attack from there on."""
_OPENCV_LIMIT = 1 << 30
VARIABLE = "EYETOY_MAX_IMAGE_PIXELS"


class ImageTooLargeError(DataFileError):
    """An image that was not decoded for its size."""


def needed() -> bool:
    """Whether mmcv is installed beside Pillow, which reads headers."""
    return find_spec("mmcv") is not None and find_spec("PIL") is not None


def apply() -> None:
    """Replaces the readers when they are imported."""
    if needed():
        after_import("mmcv.image", _limit)
        after_import("mmcv.transforms.base", _name_in_transforms)


def _limit(module: ModuleType) -> None:
    functions = sys.modules["mmcv.image.io"]
    replace_function(functions, "imfrombytes", _check_first)
    replace_function(functions, "imread", named_in_refusals)


def _check_first(imfrombytes: Callable[..., Any]) -> Callable[..., Any]:
    def check_first(content: bytes, *args: Any, **kwargs: Any) -> Any:
        check_size(io.BytesIO(content), len(content))
        return imfrombytes(content, *args, **kwargs)

    return check_first


def check_size(file: BinaryIO | str | Path, size: int) -> None:
    """Check, by its header, that an image has no more pixels than are decoded.

    Args:
        file: The image.
        size: Of the file, in bytes.

    Raises:
        ImageTooLargeError: It has more.
    """
    limit = _limit_set()
    width, height = _size(file)
    pixels = width * height
    if pixels > limit:
        opencv = f" OPENCV_IO_MAX_IMAGE_PIXELS={pixels}" if pixels > _OPENCV_LIMIT else ""
        raise ImageTooLargeError(
            f"it has {width} x {height} pixels in {size:,} bytes, which is more than {limit:,} in all and "
            f"was not decoded. If you trust it and have the memory (some 20 bytes a pixel): {VARIABLE}={pixels}"
            f"{opencv}"
        )


def _limit_set() -> int:
    text = os.environ.get(VARIABLE, str(LIMIT))
    if not text.isdecimal():
        raise ImageTooLargeError(f"{VARIABLE} must be a number of pixels, got {text!r}")
    return int(text)


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Pillow opens images of any size; who calls has checked it, or reads headers alone."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _size(file: BinaryIO | str | Path) -> tuple[int, int]:
    """Width and height by the header; zeros where Pillow does not know the format."""
    from PIL import Image

    try:
        with without_pillows_limit(), Image.open(file) as image:
            return image.size
    except Exception:  # not an image, or one that the decoder knows: its message is about that
        return 0, 0


def _name_in_transforms(module: ModuleType) -> None:
    def wrapper(call: Function) -> Function:
        def __call__(self: Any, results: Any) -> Any:
            try:
                return call(self, results)
            except ImageTooLargeError as error:
                # The image first, then its mask.
                path = results.get("seg_map_path" if "img" in results else "img_path")
                raise ImageTooLargeError(f"{path}: {error}") from error

        return __call__

    replace_method(module.BaseTransform, "__call__", wrapper)
