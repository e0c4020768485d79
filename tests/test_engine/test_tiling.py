"""Large images in windows: where they are, what is read, how what they say is put together."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from eyetoy_mm.engine.predictions import Instances
from eyetoy_mm.engine.tiling import Rows, Tiler, merge, open_rows, spans
from eyetoy_mm.errors import UserError


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 30, 10), (101, 30, 0), (20, 30, 5), (30, 30, 29), (31, 30, 29)]
)
def test_windows_cover_a_side_once(length, tile, overlap):
    windows = spans(length, tile, overlap)
    assert all(window.stop - window.start == min(tile, length) for window in windows)
    assert windows[0].start == 0 and windows[-1].stop == length
    assert all(first.stop - second.start >= overlap for first, second in pairwise(windows))
    owned = [pixel for window in windows for pixel in range(*window.core)]
    assert owned == list(range(length))
    assert all(window.start <= window.core[0] < window.core[1] <= window.stop for window in windows)


def labels_of(windows):
    """A model that labels a pixel by its brightness, whatever is around it."""
    return [
        BaseDataElement(pred_sem_seg=PixelData(data=torch.from_numpy(one[..., 0].astype(int) % 5)[None]))
        for one in windows
    ]


@pytest.mark.parametrize("batch", [1, 3])
def test_labels_are_those_of_the_whole_image(batch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 95, 3), dtype=np.uint8)
    found = Tiler(labels_of, 5, tile=32, overlap=8, batch=batch)(Rows(pixels), tmp_path)
    assert isinstance(found.prediction.labels, np.memmap)  # on the disk
    assert (found.prediction.labels == pixels[..., 0] % 5).all()
    assert (found.preview == pixels).all() and (found.preview_prediction.labels == pixels[..., 0] % 5).all()


def test_a_preview_is_reduced(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8192, 1), dtype=np.uint8)
    found = Tiler(labels_of, 5, tile=512, overlap=0)(Rows(pixels), tmp_path)
    assert found.preview.shape == (5, 4096, 1)
    assert (found.preview_prediction.labels == found.preview[..., 0] % 5).all()


def objects_of(windows):
    """A model that finds what is bright, surer of parts that are cut off, as models are at times."""
    samples = []
    for one in windows:
        rows, columns = np.nonzero(one[..., 0])
        corners = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        found = InstanceData(
            bboxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([1 - len(rows) / 1000] * len(corners)),
            labels=torch.zeros(len(corners), dtype=torch.int64),
            masks=torch.from_numpy(one[None, ..., 0] > 0)[: len(corners)],
        )
        samples.append(BaseDataElement(pred_instances=found))
    return samples


def test_an_object_at_a_border_is_found_once_and_whole(tmp_path):
    pixels = np.zeros((64, 100, 1), np.uint8)
    pixels[26:34, 36:46] = 255
    found = Tiler(objects_of, 1, tile=40, overlap=20)(Rows(pixels), tmp_path).prediction.instances
    assert found.boxes.tolist() == [[36, 26, 46, 34]]
    (mask,) = found.masks
    assert (mask.x, mask.y, mask.inside.shape) == (36, 26, (8, 10)) and mask.inside.all()


def test_objects_of_one_window_or_of_two_classes_leave_each_other_alone():
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]], np.float32)
    found = Instances(corners, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 0, 1]))
    window, cut = np.array([0, 0, 1, 1]), np.zeros(4, bool)
    assert merge(found, cut, window).tolist() == [0, 1, 3]
    assert merge(found, np.array([True, True, False, False]), window).tolist() == [2, 3]  # the whole one stays


@pytest.mark.parametrize("largest", [12, 90])
def test_of_many_objects_all_that_meet_are_compared(largest):
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 100, (300, 2))
    boxes = np.hstack([first, first + rng.uniform(4, 12, (300, 2))]).astype(np.float32)
    boxes[7, 2:] = boxes[7, :2] + largest
    labels, window, cut = rng.integers(0, 2, 300), rng.integers(0, 4, 300), rng.random(300) < 0.2
    found = Instances(boxes, rng.random(300).astype(np.float32), labels)

    def is_one(first, second):
        sides = np.minimum(boxes[first, 2:], boxes[second, 2:]) - np.maximum(boxes[first, :2], boxes[second, :2])
        smaller = min(np.prod(boxes[index, 2:] - boxes[index, :2]) for index in (first, second))
        return (
            labels[first] == labels[second]
            and window[first] != window[second]
            and (sides > 0).all()
            and (np.prod(sides) > 0.5 * smaller)
        )

    kept: list[int] = []
    for index in sorted(range(300), key=lambda at: (cut[at], -found.scores[at])):
        if not any(is_one(index, other) for other in kept):
            kept.append(index)
    assert len(kept) < 280
    assert merge(found, cut, window).tolist() == sorted(kept, key=lambda at: -found.scores[at])


@pytest.mark.parametrize("kind", ["strips", "tiles", "planes", "plain"])
def test_rows_of_a_tiff(kind, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    settings = dict(
        strips=dict(compression="zlib", rowsperstrip=7),
        tiles=dict(compression="zlib", tile=(16, 32)),
        planes=dict(compression="zlib", planarconfig="separate", rowsperstrip=7),
        plain=dict(),
    )[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    stored = pixels.transpose(2, 0, 1) if kind == "planes" else pixels
    tifffile.imwrite(tmp_path / "image.tif", stored, photometric="rgb", **settings)
    rows = open_rows(tmp_path / "image.tif")
    assert rows.shape == (50, 70, 3)
    for top, bottom in [(0, 50), (3, 9), (13, 31), (49, 50)]:
        assert (rows.read(top, bottom) == pixels[top:bottom]).all()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_numbers_are_in_the_byte_order_of_the_machine(compression, tmp_path):
    """ImageJ's TIFFs are not; OpenCV takes the bytes of an array as they are."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    pixels = np.random.default_rng(0).integers(0, 65536, (50, 70), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", pixels, byteorder=">", compression=compression)
    rows = open_rows(tmp_path / "image.tif").read(3, 50)
    assert (cv2.imdecode(cv2.imencode(".png", rows)[1], cv2.IMREAD_UNCHANGED) == pixels[3:]).all()


def test_numbers_that_no_png_holds_are_refused(tmp_path):
    """OpenCV would round them to 8 bits on the way to the pipeline."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "image.tif", np.ones((5, 7), np.float32), compression=compression)
        with pytest.raises(UserError, match="image.tif: --tile reads numbers of 8 or 16 bits .*; these are float32"):
            open_rows(tmp_path / "image.tif")
    Image.new("LA", (7, 5)).save(tmp_path / "image.png")
    with pytest.raises(UserError, match="image.png: --tile reads images of 1, 3 or 4 channels; this one has 2"):
        open_rows(tmp_path / "image.png")


def test_rows_of_other_formats_and_of_none(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert (open_rows(tmp_path / "image.png").read(5, 20) == pixels[5:]).all()
    (tmp_path / "none.png").write_text("nothing")
    with pytest.raises(UserError, match="none.png is not an image that can be read"):
        open_rows(tmp_path / "none.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(UserError, match="turned.jpg has an EXIF orientation, which --tile does not follow"):
        open_rows(tmp_path / "turned.jpg")
    monkeypatch.setenv("EYETOY_MAX_IMAGE_PIXELS", "599")
    with pytest.raises(UserError, match="image.png: it has 30 x 20 pixels .* as a TIFF it can be read in parts"):
        open_rows(tmp_path / "image.png")
