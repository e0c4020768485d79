"""Images that would fill the memory: refused by their header, with name, size and limit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("mmcv")

import mmcv
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from PIL import Image

from benchmarks.trust.hostile import png_of_zeros
from eyetoy_mm.compat.image_sizes import LIMIT, VARIABLE, ImageTooLargeError
from eyetoy_mm.engine.preprocessing import read_image
from eyetoy_mm.errors import UserError, report_user_errors


@pytest.fixture
def bomb(tmp_path: Path) -> str:
    return str(png_of_zeros(tmp_path / "bomb.png", 15_000, 12_000))


def test_it_is_small_and_named_by_every_reader(bomb: str) -> None:
    assert Path(bomb).stat().st_size < 100_000
    message = (
        rf"{bomb}: it has 15000 x 12000 pixels in [\d,]+ bytes, which is more than {LIMIT:,}.*{VARIABLE}=180000000"
    )
    for read in (mmcv.imread, lambda path: LoadImageFromFile()(dict(img_path=path))):
        with pytest.raises(ImageTooLargeError, match=message):
            read(bomb)
    with pytest.raises(UserError, match=message):  # in a folder, the others are painted all the same
        read_image(bomb)
    mask = dict(img=np.zeros((1, 1, 3)), img_path="photo.jpg", seg_map_path=bomb)
    with pytest.raises(ImageTooLargeError, match=message):
        LoadAnnotations(with_bbox=False, with_label=False, with_seg=True)(mask)


def test_from_some_size_on_opencv_has_to_be_told_too(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    bomb = png_of_zeros(tmp_path / "bomb.png", 40_000, 40_000, rows=10)
    with pytest.raises(ImageTooLargeError, match=rf"40000 x 40000 pixels.*{VARIABLE}=1600000000 OPENCV_IO_MAX"):
        mmcv.imread(bomb)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.zeros((30, 40, 3), np.uint8))
    assert mmcv.imread(tmp_path / "photo.jpg").shape == (30, 40, 3)
    monkeypatch.setenv(VARIABLE, "1199")
    with pytest.raises(ImageTooLargeError, match="40 x 30 pixels"):
        mmcv.imread(tmp_path / "photo.jpg")
    monkeypatch.setenv(VARIABLE, "1200")
    assert mmcv.imread(tmp_path / "photo.jpg").shape == (30, 40, 3)
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(ImageTooLargeError, match=f"{VARIABLE} must be a number of pixels, got 'many'"):
        mmcv.imread(tmp_path / "photo.jpg")


def test_what_is_no_image_is_left_to_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    assert mmcv.imread(tmp_path / "text.jpg") is None


def test_from_a_process_of_a_loader_it_is_one_line(bomb: str) -> None:
    from torch.utils.data import DataLoader

    class Images(list):
        def __getitem__(self, index: int) -> object:  # type: ignore[override]
            return mmcv.imread(super().__getitem__(index))

    @report_user_errors
    def main() -> None:
        next(iter(DataLoader(Images([bomb]), num_workers=1)))

    with pytest.raises(SystemExit) as caught:
        main()
    assert str(caught.value).startswith(f"error: {bomb}: it has 15000") and "Traceback" not in str(caught.value)
