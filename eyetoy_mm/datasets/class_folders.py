"""One folder of images per class, or lists of images and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmpretrain.datasets import BaseDataset

from eyetoy_mm.datasets.packs import SCHEME, PackedImages
from eyetoy_mm.datasets.splits import IMAGE_SUFFIXES, class_images, class_names
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address, join
from eyetoy_mm.registry import DATASETS


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """mmpretrain's CustomDataset, with what is wrong with local files said by name before training.

    Images at an address (``s3://...``) are listed by mmengine's file client and not looked at before they are loaded.
    Those in a pack (``pack://...``, made by ``eyetoy pack``) are not even listed: of tens of millions each process
    would have a list of gigabytes.

    Without ``ann_file`` the classes are the folders below ``data_prefix``, in the order of ``classes`` if they are
    given; with it, a line is the path of an image and its label, as ``tools/split_classes.py`` writes them.

    Args:
        data_root: The folder that the other paths start from.
        ann_file: The list of images and labels.
        classes: Names of the classes, or a file with one on each line.
        **kwargs: Other arguments of mmpretrain's datasets: ``data_prefix``, ``pipeline``, ...

    Raises:
        UserError: A folder, class, list or image is missing or empty, or a label has no class.
    """

    def __init__(
        self, data_root: str = "", ann_file: str = "", classes: str | Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        if isinstance(classes, str):
            classes = [line.strip() for line in _lines(join(data_root, classes))]
        if data_root.startswith(SCHEME) and not ann_file:
            kwargs["serialize_data"] = False  # the index of the pack is
        super().__init__(ann_file=ann_file, data_root=data_root, classes=classes, **kwargs)

    def load_data_list(self) -> Sequence[dict]:
        """Paths of the images, and their labels."""
        root = self.img_prefix
        if root.startswith(SCHEME) and not self.ann_file:
            if self.CLASSES is None:
                self._metainfo["classes"] = tuple(_class_names(root))
            return PackedImages(root, self.CLASSES, IMAGE_SUFFIXES)
        pairs = list(self._from_list() if self.ann_file else self._from_folders(root))
        if not pairs:
            raise UserError(f"{self.ann_file or root} has no images")
        images = [(join(root, path), label) for path, label in pairs]
        for path, _ in images:  # in the loader, an empty file would fail with a message that does not name it
            if not is_address(path) and not (os.path.isfile(path) and os.path.getsize(path)):
                listed = f", which {self.ann_file} lists," if self.ann_file else ""
                raise UserError(f"the image {path}{listed} is missing or empty; get it again or take it off")
        return [dict(img_path=path, gt_label=label) for path, label in images]

    def _from_folders(self, root: str) -> Iterator[tuple[str, int]]:
        if self.CLASSES is None:
            self._metainfo["classes"] = tuple(_class_names(root))
        for label, name in enumerate(self.CLASSES):
            yield from ((path, label) for path in _class_images(root, name))

    def _from_list(self) -> Iterator[tuple[str, int]]:
        for number, line in enumerate(_lines(self.ann_file), start=1):
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal():
                raise UserError(f"{self.ann_file}, line {number}: {line!r} is not the path of an image and a label")
            if self.CLASSES is not None and int(label) >= len(self.CLASSES):
                raise UserError(
                    f"{self.ann_file}, line {number}: {path} has label {label}, but there are {len(self.CLASSES)} "
                    f"classes (labels 0 to {len(self.CLASSES) - 1})"
                )
            yield path, int(label)


def _class_names(root: str) -> list[str]:
    if not is_address(root):
        return class_names(Path(root))
    names = fileio.list_dir_or_file(root, list_file=False)
    return sorted(name for name in names if not name.startswith("."))


def _class_images(root: str, name: str) -> list[str]:
    if not is_address(root):
        return class_images(Path(root), name)
    files = fileio.list_dir_or_file(join(root, name), list_dir=False, recursive=True)
    return sorted(f"{name}/{file}" for file in files if file.lower().endswith(IMAGE_SUFFIXES))


def _lines(path: str) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        return [line for line in fileio.get_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
