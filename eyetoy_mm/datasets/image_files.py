"""One image file: whether it is whole, how it is to be held, and whether it is the image that was annotated.

Phones store what the sensor saw and note in a tag (EXIF orientation) how to turn it for looking at it. Programs that
annotate show the turned photo, most of them; some write boxes of the stored one, some the size of one and the boxes of
the other. OpenCV turns photos while loading, unless told not to; boxes and masks stay as they are. So a data set with
such tags needs a rule, ``image_orientation`` of a config: annotations are of the photo as ``"exif"`` shows it, or as it
is ``"stored"``.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mmcv
import numpy as np
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from eyetoy_mm.datasets.files import check_is_file
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address

RULES = ("exif", "stored")
# Formats that OpenCV and Pillow turn if they are asked to; TIFF they always turn, others OpenCV never does.
TURNED_ON_REQUEST = ("JPEG", "MPO", "PNG", "WEBP")
_ORIENTATION_TAG = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)
_OPENCV_MAX_PIXELS = 1 << 30
_OPENCV_MAX_SIDE = 1 << 20
_PILLOW_MAX_PIXELS = 178_956_970
# Below this a backbone's stem leaves nothing; beyond that ratio resizing does.
_MIN_SIDE, _MAX_RATIO = 4, 50
# How files begin that are called ``.jpg`` and are something else.
_FOREIGN = {
    b"ftyphei": "HEIC, as iPhones write it, which OpenCV does not read: convert it to JPEG",
    b"ftypmif": "HEIC, as iPhones write it, which OpenCV does not read: convert it to JPEG",
    b"<html": "a web page, such as a failed download leaves: download it again",
    b"<!doc": "a web page, such as a failed download leaves: download it again",
    b"%pdf": "a PDF: convert it",
    b"<svg": "a drawing (SVG): convert it",
    b"<?xml": "XML, such as storage answers in place of a file: download it again",
    b'{"': "JSON, such as a server answers in place of a file: download it again",
    b"pk\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b\x08": "compressed by gzip: unpack it",
    b"\x00\x05\x16\x07": "what macOS keeps beside a file of its own (._name), not the file: take it out",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: git lfs pull",
}


@dataclass(frozen=True)
class Header:
    """What the head of an image file says.

    Args:
        size: Width and height as stored, in pixels; of TIFF as it is turned, which every loader does.
        orientation: The EXIF tag, 1 to 8; 1, or no tag, is as it should be.
        format: Pillow's name of it, as ``JPEG``.
        bits: Of a channel.
        frames: Pictures in the file; only the first is loaded.
        mode: Pillow's name of how pixels are stored, as ``RGB``; ``P`` for a palette.
    """

    size: tuple[int, int]
    orientation: int = 1
    format: str = "JPEG"
    bits: int = 8
    frames: int = 1
    mode: str = "RGB"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file; the same fault of several files is one finding.

    Args:
        kind: Its name, as :class:`~eyetoy_mm.datasets.findings.Finding` has it.
        message: What is wrong and what to do, alike for every file.
        fatal: Whether a run with the file would be wrong.
        detail: What is of this file alone.
    """

    kind: str
    message: str
    fatal: bool = True
    detail: str = field(default="", compare=False)

    def of(self, path: str) -> str:
        """The file, with what is of it alone."""
        return f"{path} ({self.detail})" if self.detail else path


@dataclass(frozen=True)
class ImageReport:
    """What :func:`examine` found.

    Args:
        digest: Of the file's bytes; equal files have equal digests.
        header: None if Pillow knows no such file.
        shape: Of the array that the loader gives (height, width, and channels if any); None if it gives none.
        faults: What is wrong.
    """

    digest: str
    header: Header | None
    shape: tuple[int, ...] | None
    faults: tuple[Fault, ...]


def read_header(content: bytes | str) -> Header | None:
    """Read the head of an image, without decoding it.

    Args:
        content: The file, or its path.

    Returns:
        What it says, or None if it is of no format that Pillow knows.
    """
    try:
        if isinstance(content, str):
            check_is_file(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd tags, which are no faults of the code
            with _without_limit(), Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
                # Image's own: that of PNG decodes the picture first, in case there is a tag behind it.
                orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a phone's preview beside it
                bits = 16 if image.mode.startswith("I") else 32 if image.mode == "F" else 8
                known = orientation if orientation in range(1, 9) else 1  # 0 and 9 are seen, and turn nothing
                return Header(image.size, known, image.format or "", bits, frames, image.mode)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError):  # what Pillow's readers raise
        return None


def examine(content: bytes, load: Callable[[bytes], np.ndarray | None]) -> ImageReport:
    """Look at an image file as a whole.

    Args:
        content: The file.
        load: What gives its pixels in training.

    Returns:
        What it is, and what is wrong with it.
    """
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    header = read_header(content)
    if not content:
        return ImageReport(digest, None, None, (Fault("empty file", "these files have no bytes; replace them"),))
    if header is not None and _is_huge(header):
        return ImageReport(digest, header, None, (_TOO_LARGE,))
    try:
        pixels = load(content)
    except Exception:  # each decoder has its own; what is wrong is looked for below
        pixels = None
    if pixels is None:
        return ImageReport(digest, header, None, (_unreadable(content, header),))
    return ImageReport(digest, header, pixels.shape, tuple(_oddities(content, header, pixels)))


def examine_file(
    path: str, color_type: str, backend: str, backend_args: dict | None = None
) -> tuple[ImageReport, np.ndarray | None]:
    """Look at an image file as a whole, on a disk or at an address.

    Args:
        path: Where it is.
        color_type: How it is decoded, as mmcv's steps have it.
        backend: By what.
        backend_args: Of mmengine's file client.

    Returns:
        What is found, and the pixels; None if there are none.
    """
    loaded: list[np.ndarray | None] = [None]

    def load(content: bytes) -> np.ndarray | None:
        loaded[0] = mmcv.imfrombytes(content, flag=color_type, backend=backend)
        return loaded[0]

    try:
        if not is_address(path):
            check_is_file(path)
        content = fileio.get(path, backend_args)
    except FileNotFoundError:
        return _NO_FILE, None
    except (OSError, ValueError) as error:  # a folder of that name, a link to itself, no rights; a name that none has
        fault = Fault("unreadable file", "it cannot be read", detail=getattr(error, "strerror", None) or str(error))
        return ImageReport("", None, None, (fault,)), None
    return examine(content, load), loaded[0]


_NO_FILE = ImageReport("", None, None, (Fault("missing file", "there is no such file"),))

UNDECIDED = Fault(
    "orientation of photos",
    "EXIF tags say that these photos are to be turned, by which they are loaded, and nothing says whether boxes and "
    "masks are of the turned photo or of the stored one. Look at one of them, then set image_orientation='exif' "
    "in the config if they are of the photo as programs show it (labelme, newer CVAT, browsers), or 'stored' if they "
    "are of the pixels as they lie in the file (older CVAT, scripts that open files with Pillow)",
)


def orientation_fault(
    header: Header, annotated: tuple[int, int] | None, loaded: tuple[int, int], rule: str | None
) -> Fault | None:
    """Compare an annotated image, as it is loaded, with its annotation.

    Args:
        header: Of the file.
        annotated: Width and height that the annotation says, or those of its mask; None if it says none.
        loaded: Width and height of what is loaded.
        rule: ``image_orientation`` of the config; None if it has none.

    Returns:
        None if boxes and masks lie where they should, as far as can be told.
    """
    turns = header.orientation != 1
    matches = annotated in (None, loaded)
    if annotated is not None and not matches and not (turns and annotated == loaded[::-1]):
        return size_fault(annotated, loaded)
    # A photo of unequal sides tells by them which way its annotations are.
    if not turns or (annotated == loaded and header.orientation in SWAPS_SIDES and loaded[0] != loaded[1]):
        return None
    if header.format not in TURNED_ON_REQUEST:
        return _turned_by_none(header, matches, rule)
    if not matches:
        return Fault(
            "orientation of photos",
            "the annotations are not of the photo as it is loaded but of the photo turned by 90 degrees: its EXIF "
            f"orientation is not followed alike. Set image_orientation={_other(header, loaded)!r} in the config",
        )
    return UNDECIDED if rule is None else None


def _turned_by_none(header: Header, matches: bool, rule: str | None) -> Fault | None:
    """The fault of a photo of a format that no setting turns, or leaves as stored."""
    always = header.format == "TIFF"
    how = f"OpenCV {'always' if always else 'never'} turns {header.format} by its EXIF tag"
    if not matches:
        message = f"the annotations are of the photo {'as stored' if always else 'as it is shown'}, and {how}"
    elif rule is not None and always != (rule == "exif"):
        message = f"image_orientation={rule!r} is not followed for {header.format}: {how}"
    else:
        return UNDECIDED if rule is None else None
    return Fault("orientation of photos", f"{message}. Write these files as they were annotated, without the tag")


def size_fault(annotated: tuple[int, int], loaded: tuple[int, int]) -> Fault:
    """The fault of an image whose annotation is of another size.

    Args:
        annotated: Width and height that the annotation says, or those of its mask.
        loaded: Width and height of what is loaded.
    """
    hint = "width and height are swapped" if annotated == loaded[::-1] else "were they resized after annotation?"
    return Fault(
        "size of images",
        f"the annotations are of images of another width x height than what is loaded ({hint}): boxes and masks lie "
        "elsewhere. Correct the annotations' size, or annotate or convert these anew",
        detail=f"annotated {annotated[0]} x {annotated[1]}, loaded {loaded[0]} x {loaded[1]}",
    )


def check_rule(rule: object) -> None:
    """Refuse a rule that there is not.

    Raises:
        UserError: It is not one of :data:`RULES`.
    """
    if rule not in (None, *RULES):
        raise UserError(
            f"image_orientation={rule!r} should be 'exif' (annotations are of photos as their EXIF tag turns them) or "
            "'stored' (of the pixels as they lie in the file)"
        )


def _other(header: Header, loaded: tuple[int, int]) -> str:
    """The rule that is not the one by which the photo was loaded."""
    return "exif" if loaded == header.size else "stored"


@contextmanager
def _without_limit() -> Iterator[None]:
    """Lift Pillow's limit of pixels: a header is read, nothing decoded."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_huge(header: Header) -> bool:
    width, height = header.size
    return width * height > _OPENCV_MAX_PIXELS or max(header.size) > _OPENCV_MAX_SIDE


_TOO_LARGE = Fault(
    "huge image",
    "these say that they have more pixels than the loader takes (OpenCV: 2**30, and 2**20 a side; Pillow: "
    "178,956,970): they are made to fill the memory, or are to be cut in tiles first",
)


def foreign_kind(content: bytes) -> str:
    """What a file is that is called an image and is none, by how it begins, and what to do; empty if nothing known."""
    head = content[:64].lower()
    return next((what for sign, what in _FOREIGN.items() if sign in head), "")


def _unreadable(content: bytes, header: Header | None) -> Fault:
    if what := foreign_kind(content):
        return Fault("not an image", f"this is {what}")
    if header is not None and header.size[0] * header.size[1] > _PILLOW_MAX_PIXELS:
        return _TOO_LARGE
    if header is None:
        return Fault("not an image", "neither OpenCV nor Pillow knows this format; replace or convert these files")
    if _is_truncated(content, header):
        return Fault("truncated image", "the file ends before the picture does; copy or download it again")
    return Fault("unreadable image", f"the loader cannot decode this {header.format}; write it again, or replace it")


def _oddities(content: bytes, header: Header | None, pixels: np.ndarray) -> list[Fault]:
    """What is odd about an image that loads; none of it stops a run."""
    faults = []
    if header is not None and _is_truncated(content, header):
        faults.append(
            Fault("truncated image", "the file ends before the picture does, whose rest is loaded grey", fatal=False)
        )
    sides = sorted(pixels.shape[:2])
    if sides[0] < _MIN_SIDE or sides[1] > _MAX_RATIO * sides[0]:
        faults.append(
            Fault("extreme shape", f"a side under {_MIN_SIDE} or sides of more than 1 : {_MAX_RATIO}", fatal=False)
        )
    return [*faults, *(lost_in_loading(header, pixels) if header is not None else ())]


def lost_in_loading(header: Header, pixels: np.ndarray) -> Iterator[Fault]:
    """What of an image is not in the array that was loaded of it.

    Args:
        header: Of its file.
        pixels: The array.
    """
    if header.frames > 1:
        yield Fault("several frames", "only the first frame or page is loaded", fatal=False)
    if header.bits > 8 and pixels.dtype == np.uint8:
        if pixels.max() < 16:
            message = "8 of 16 bits are loaded, and in these they are nearly black (sensors give 10 to 14 bits)"
        elif pixels.min() == 255:
            message = "8 of 16 bits are loaded, and in these everything is white: Pillow cuts values at 255"
        else:
            return
        yield Fault("16-bit image", message + "; stretch them to 8 bits, or load them unchanged", fatal=False)


# Behind the pixels of a JPEG, in which 0xff is followed by 0, or by 0xd0 to 0xd7 where a decoder may start anew.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _has_end(jpeg: bytes) -> bool:
    """Whether the pixels of a JPEG are followed by its end, whatever comes behind."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        kind = jpeg[place + 1]
        if kind == 0xD9:
            return True
        if kind == 0xFF:  # filled up
            place += 1
            continue
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if kind == 0xDA:
            found = _NEXT_MARKER.search(jpeg, place)
            if found is None:
                return False
            place = found.start()
    return jpeg.find(b"\xff\xd9", place) >= 0


def _is_truncated(content: bytes, header: Header) -> bool:
    """Whether the picture lacks its end; it is decoded once more only where that is not plain from the last bytes."""
    end = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(header.format)
    if end is not None and content.rstrip(b"\0").endswith(end):
        return False
    if header.format == "JPEG" and content[:2] == b"\xff\xd8":
        return not _has_end(content)  # decoders take the zeros of a copy that was cut off for a picture
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("L", (image.width // 8, image.height // 8))  # JPEG alone: eight times smaller, quicker
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return "truncated" in str(error) or "unexpected end" in str(error).lower()
    except Image.DecompressionBombError:
        return False
    return False
