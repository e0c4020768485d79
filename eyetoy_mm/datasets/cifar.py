"""CIFAR's batch files as they lie on a disk: other splits than the archive's, compressed files, subsets."""

from __future__ import annotations

import io
import lzma
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmpretrain.datasets import CIFAR10, CIFAR100

from eyetoy_mm.compat.data_files import PlainUnpickler
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import join
from eyetoy_mm.registry import DATASETS

_LARGEST_BATCH = 1 << 30  # bytes; all of CIFAR is a sixth


@DATASETS.register_module()
class CIFAR10Files(CIFAR10):
    """CIFAR-10 from the batch files that are named, without the archive's checksums and downloads.

    mmpretrain's CIFAR10 takes the archive whole or not at all. With this class and ``indices``, the training batches
    alone give a training and a validation set: ``indices=45000`` is the first 45,000 images, ``indices=-5000`` the last
    5,000.

    Args:
        data_root: The folder with the files, or with ``cifar-10-batches-py`` in it.
        files: Names of the files, in this order. Each may be compressed, with the suffix ``.xz``. None takes those of
            the split.
        split: ``train`` or ``test``.
        **kwargs: Other arguments of mmpretrain's datasets, as ``pipeline`` and ``indices``.

    Raises:
        UserError: A file is missing, cut, or something else than images and labels.
    """

    def __init__(self, data_root: str, files: Sequence[str] | None = None, split: str = "train", **kwargs: Any) -> None:
        self.files = files or [name for name, _ in (self.train_list if split == "train" else self.test_list)]
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images ``(32, 32, 3)`` RGB of 8 bits, and their labels."""
        data_list = []
        for name in self.files:
            images, labels = read_batch(self._find(name))
            data_list += [dict(img=image, gt_label=label) for image, label in zip(images, labels)]
        return data_list

    def _find(self, name: str) -> str:
        root = os.path.expanduser(self.data_root)
        paths = [join(folder, f) for folder in (root, join(root, self.base_folder)) for f in (name, f"{name}.xz")]
        for path in paths:
            if fileio.exists(path):
                return path
        raise UserError(
            f"there is no CIFAR file {name}; looked for {', '.join(map(str, paths))}. Where is it? --data-root FOLDER"
        )


@DATASETS.register_module()
class CIFAR100Files(CIFAR10Files, CIFAR100):
    """CIFAR-100 with its 100 fine labels, as :class:`CIFAR10Files`; its folder is ``cifar-100-python``."""


def read_batch(path: str | Path) -> tuple[np.ndarray, list[int]]:
    """Read one batch file.

    Args:
        path: A pickle of a dict with ``data`` and ``labels``, or of CIFAR-100 ``fine_labels``; compressed if the
            suffix is ``.xz``.

    Returns:
        The images ``(N, 32, 32, 3)`` of 8 bits, and their labels.

    Raises:
        UserError: It cannot be read, or is something else.
    """
    try:
        content = fileio.get(path)
        if str(path).endswith(".xz"):
            content = _decompressed(content)
        batch = PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
        labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
        labels = [int(label) for label in labels]
        images = np.asarray(batch["data"])
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"{len(labels)} labels, and data of shape {images.shape} and type {images.dtype}")
    except Exception as error:  # a damaged pickle can raise whatever it likes
        raise UserError(
            f"{path} is not a batch file of CIFAR, or is damaged or cut short ({type(error).__name__}: {error}); get "
            "it again, or take it off the dataset's `files`"
        ) from error
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _decompressed(content: bytes) -> bytes:
    """What is compressed, up to a size that no batch has: a kilobyte can stand for all memory."""
    reader = lzma.LZMADecompressor()
    found = reader.decompress(content, max_length=_LARGEST_BATCH)
    if not reader.eof:
        raise ValueError(f"cut short, or larger than {_LARGEST_BATCH:,} bytes when decompressed")
    return found
