"""CIFAR from small batch files, against the bytes they were made of."""

import lzma
import os
import pickle
import re

import numpy as np
import pytest

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
from mmengine.registry import DATASETS

from eyetoy_mm.datasets.cifar import read_batch
from eyetoy_mm.errors import UserError


def content(count: int, first: int = 0) -> dict:
    """Images that differ in every byte from their neighbors, and labels 0, 1, ..., 9, 0, ..."""
    data = np.stack([(np.arange(3072) * 7 + 31 * i) % 251 for i in range(first, first + count)]).astype(np.uint8)
    return dict(batch_label="a batch", labels=[i % 10 for i in range(first, first + count)], data=data)


def write(path, batch: object, protocol: int = 2) -> None:
    text = pickle.dumps(batch, protocol=protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text, preset=0) if path.suffix == ".xz" else text)


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did, which wrote the official files: strings of text or bytes are plain 8-bit strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        text = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, obj, name=None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__qualname__}\n".encode())


def build(root, name="CIFAR10Files", **arguments):
    return DATASETS.build(dict(type=f"eyetoy_mm.{name}", data_root=str(root), **arguments))


def pixels_by_hand(row: np.ndarray) -> np.ndarray:
    """1,024 red bytes row by row, then as many green and blue ones."""
    image = np.empty((32, 32, 3), np.uint8)
    for y in range(32):
        for x in range(32):
            image[y, x] = [row[1024 * channel + 32 * y + x] for channel in range(3)]
    return image


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-py"])
@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_pixels_and_labels(tmp_path, folder, suffix):
    for number in range(1, 6):
        write(tmp_path / folder / f"data_batch_{number}{suffix}", content(3, 3 * (number - 1)))
    write(tmp_path / folder / f"test_batch{suffix}", content(2, 100))
    train, test = build(tmp_path), build(tmp_path, split="test")
    assert (len(train), len(test)) == (15, 2)
    assert [train[i]["gt_label"] for i in range(15)] == [*range(10), *range(5)]
    rows = content(15)["data"]
    for i in (0, 4, 14):
        np.testing.assert_array_equal(train[i]["img"], pixels_by_hand(rows[i]))
    np.testing.assert_array_equal(test[1]["img"], pixels_by_hand(content(1, 101)["data"][0]))
    assert train.metainfo["classes"][:2] == ("airplane", "automobile") and len(train.metainfo["classes"]) == 10


def test_as_python_2_wrote_the_official_files(tmp_path):
    with (tmp_path / "data_batch_1").open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content(2))
    text = (tmp_path / "data_batch_1").read_bytes()
    assert b"_codecs" not in text and b"cnumpy.core.multiarray\n_reconstruct" in text
    images, labels = read_batch(tmp_path / "data_batch_1")
    np.testing.assert_array_equal(images[1], pixels_by_hand(content(2)["data"][1]))
    assert labels == [0, 1]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle(tmp_path, protocol):
    write(tmp_path / "batch", content(2), protocol)
    images, labels = read_batch(tmp_path / "batch")
    np.testing.assert_array_equal(images[1], pixels_by_hand(content(2)["data"][1]))
    assert labels == [0, 1]


def test_the_first_images_train_and_the_last_ones_validate(tmp_path):
    for number in range(1, 6):
        write(tmp_path / f"data_batch_{number}.xz", content(10, 10 * (number - 1)))
    train = build(tmp_path, indices=45)
    val = build(tmp_path, files=["data_batch_5"], indices=-5)
    rows = content(50)["data"]
    assert (len(train), len(val)) == (45, 5)
    for dataset, first in ((train, 0), (val, 45)):
        found = np.stack([dataset[i]["img"] for i in range(len(dataset))])
        expected = rows[first : first + len(dataset)].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found, expected)


def test_cifar_100_has_its_fine_labels(tmp_path):
    batch = dict(content(3), fine_labels=[99, 0, 42], coarse_labels=[1, 2, 3])
    del batch["labels"]
    write(tmp_path / "cifar-100-python" / "train", batch)
    write(tmp_path / "cifar-100-python" / "test", dict(batch, fine_labels=[5, 6, 7]))
    train = build(tmp_path, "CIFAR100Files")
    assert [train[i]["gt_label"] for i in range(3)] == [99, 0, 42]
    np.testing.assert_array_equal(train[2]["img"], pixels_by_hand(batch["data"][2]))
    assert len(train.metainfo["classes"]) == 100
    assert build(tmp_path, "CIFAR100Files", split="test")[0]["gt_label"] == 5


def test_missing_file(tmp_path):
    places = [tmp_path / folder / f for folder in ("", "cifar-10-batches-py") for f in ("test_batch", "test_batch.xz")]
    message = f"no CIFAR file test_batch; looked for {', '.join(map(str, places))}. .*--data-root"
    with pytest.raises(UserError, match=message):
        build(tmp_path, split="test")


@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_cut_file(tmp_path, suffix):
    path = tmp_path / f"data_batch_1{suffix}"
    write(path, content(20))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is not a batch file of CIFAR, or is damaged or cut"):
        build(tmp_path, files=["data_batch_1"])


WRONG = {
    "a label short": dict(content(3), labels=[1, 2]),
    "other sizes": dict(content(3), data=np.zeros((3, 1024), np.uint8)),
    "no bytes": dict(content(3), data=np.zeros((3, 3072), np.float32)),
    "no images": dict(labels=[1]),
    "no labels": dict(data=content(3)["data"]),
    "a list": [1, 2, 3],
}


@pytest.mark.parametrize("case", WRONG)
def test_files_with_something_else(tmp_path, case):
    write(tmp_path / "batch", WRONG[case])
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'batch'))} is not a batch file"):
        read_batch(tmp_path / "batch")


def test_wrong_shapes_are_told(tmp_path):
    write(tmp_path / "batch", WRONG["other sizes"])
    with pytest.raises(UserError, match=r"3 labels, and data of shape \(3, 1024\) and type uint8"):
        read_batch(tmp_path / "batch")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("call", "name"), [(os.system, "system"), (eval, "eval"), (np.save, "save")])
def test_pickles_that_run_something_are_refused(tmp_path, protocol, call, name):
    class Evil:
        def __reduce__(self):
            arguments = {"system": f"touch {tmp_path}/ran", "eval": f"open({str(tmp_path / 'ran')!r}, 'w')"}
            return call, (arguments.get(name, str(tmp_path / "ran")), *([np.zeros(1)] if name == "save" else []))

    write(tmp_path / "batch", dict(content(1), more=Evil()), protocol)
    with pytest.raises(UserError, match=rf"refused: asks to import [\w.]+\.{name}\b"):
        read_batch(tmp_path / "batch")
    assert [path.name for path in tmp_path.iterdir()] == ["batch"]
