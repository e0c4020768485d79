"""Image files as phones, scanners and failed downloads leave them: each is named for what it is."""

import io
import struct
import zlib
from functools import partial

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from eyetoy_mm.datasets.image_files import (
    UNDECIDED,
    Header,
    check_rule,
    examine,
    orientation_fault,
    read_header,
)
from eyetoy_mm.errors import UserError

LOAD = partial(mmcv.imfrombytes, flag="color", backend="cv2")
NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def encoded(pixels=NOISE, form="JPEG", mode=None, orientation=None, **options) -> bytes:
    image = Image.fromarray(pixels)
    image = image.convert(mode) if mode else image
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


WHOLE = {
    "grey": encoded(mode="L"),
    "RGBA": encoded(mode="RGBA", form="PNG"),
    "CMYK": encoded(mode="CMYK"),
    "palette": encoded(mode="P", form="PNG"),
    "bilevel": encoded(mode="1", form="PNG"),
    "16-bit": encoded((NOISE[..., 0].astype(np.uint16) << 8), form="PNG"),
    "WebP": encoded(form="WEBP"),
    "TIFF": encoded(form="TIFF"),
    "turned": encoded(orientation=6),
    "progressive": encoded(progressive=True),
    "with more behind it": encoded() + b"\xff\xda of a video, without end",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_loads_is_no_finding(kind):
    report = examine(WHOLE[kind], LOAD)
    assert report.faults == ()
    assert report.header.size == (32, 24)
    assert report.shape == ((32, 24, 3) if kind == "turned" else (24, 32, 3))


LARGE = encoded(np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8))
BAD = {
    "empty": (b"", "empty file", "no bytes"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "not an image", "web page"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image", "convert it to JPEG"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "not an image", "git lfs pull"),
    "text": (b"hello", "not an image", "neither OpenCV nor Pillow"),
    "half": (LARGE[: len(LARGE) // 2], "truncated image", "ends before the picture does"),
    "half, filled": (LARGE[: len(LARGE) // 2] + bytes(1000), "truncated image", "ends before"),
    "half a PNG": (encoded(form="PNG")[:1000], "truncated image", "ends before"),
    "bomb": (png_that_says(60_000, 60_000), "huge image", "2**30"),
    "long bomb": (png_that_says(2_000_000, 10), "huge image", "2**20"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_load_is_named(kind):
    content, name, text = BAD[kind]
    (fault,) = examine(content, LOAD).faults
    assert fault.kind == name and text in fault.message
    if "half" not in kind:  # OpenCV 4 loads the rest of a JPEG grey
        assert fault.fatal


def test_half_a_photo_that_loads_is_a_warning():
    content = LARGE[: len(LARGE) // 2]
    (fault,) = examine(content, lambda _: np.full((96, 128, 3), 128, np.uint8)).faults  # as OpenCV 4 does
    assert fault.kind == "truncated image" and not fault.fatal


def test_zeros_in_the_place_of_the_rest():
    """As copies leave them that were cut off: decoders take zeros for a picture, also where a preview has an end."""
    preview = Image.Exif()
    preview[0x010E] = encoded().decode("latin-1")
    content = encoded(np.random.default_rng(2).integers(0, 255, (240, 320, 3), np.uint8), exif=preview, quality=95)
    assert examine(content, LOAD).faults == ()
    faults = examine(content[: len(content) // 2] + bytes(len(content) // 2), LOAD).faults
    assert [fault.kind for fault in faults] == ["truncated image"]


def test_pillow_refuses_bombs_by_its_own_limit():
    report = examine(png_that_says(20_000, 10_000), partial(mmcv.imfrombytes, backend="pillow"))
    assert [fault.kind for fault in report.faults] == ["huge image"]
    assert Image.MAX_IMAGE_PIXELS is not None


ODD = {
    "line": (encoded(np.zeros((1, 500, 3), np.uint8), form="PNG"), "extreme shape"),
    "strip": (encoded(np.zeros((5, 500, 3), np.uint8), form="PNG"), "extreme shape"),
    "animation": (
        encoded(form="GIF", save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())]),
        "several frames",
    ),
    "12 bits in 16": (encoded(NOISE[..., 0].astype(np.uint16) << 4, form="PNG"), "16-bit image"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_told_and_stops_nothing(kind):
    content, name = ODD[kind]
    assert [(fault.kind, fault.fatal) for fault in examine(content, LOAD).faults] == [(name, False)]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_is_read_from_the_tag(form, orientation, tmp_path):
    (tmp_path / "photo").write_bytes(encoded(form=form, orientation=orientation))
    size = (24, 32) if (form, orientation) == ("TIFF", 6) else (32, 24)  # TIFF is turned by whoever opens it
    assert read_header(str(tmp_path / "photo")) == Header(size, orientation, form)


def test_rules_that_there_are_not():
    check_rule(None)
    with pytest.raises(UserError, match="image_orientation='turn' should be 'exif'"):
        check_rule("turn")


WIDE, HIGH, SQUARE = (32, 24), (24, 32), (32, 32)
CASES = [  # size as stored, tag, what the annotation says, what is loaded, rule: the fault
    (WIDE, 1, WIDE, WIDE, None, None),
    (WIDE, 6, HIGH, HIGH, None, None),  # sizes tell that annotations are of the turned photo
    (WIDE, 6, WIDE, HIGH, None, "image_orientation='stored'"),
    (WIDE, 6, HIGH, WIDE, "stored", "image_orientation='exif'"),
    (WIDE, 6, WIDE, WIDE, "stored", None),
    (SQUARE, 6, SQUARE, SQUARE, None, UNDECIDED.message),
    (WIDE, 3, WIDE, WIDE, None, UNDECIDED.message),  # upside down
    (WIDE, 2, WIDE, WIDE, None, UNDECIDED.message),  # mirrored
    (SQUARE, 6, SQUARE, SQUARE, "exif", None),
    (SQUARE, 6, SQUARE, SQUARE, "stored", None),
    (WIDE, 1, HIGH, WIDE, None, "width and height are swapped"),
    (WIDE, 1, (64, 48), WIDE, "exif", "were they resized"),
]


@pytest.mark.parametrize(("stored", "tag", "annotated", "loaded", "rule", "message"), CASES)
def test_rule_of_orientation(stored, tag, annotated, loaded, rule, message):
    fault = orientation_fault(Header(stored, tag), annotated, loaded, rule)
    assert fault is None if message is None else message in fault.message and fault.fatal


def test_opencv_turns_tiff_whatever_it_is_told():
    content = encoded(form="TIFF", orientation=6)
    flag = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    assert cv2.imdecode(np.frombuffer(content, np.uint8), flag).shape == (32, 24, 3)
    fault = orientation_fault(read_header(content), (32, 32), (32, 32), "stored")
    assert "image_orientation='stored' is not followed for TIFF" in fault.message
    assert orientation_fault(read_header(content), (32, 32), (32, 32), "exif") is None
