"""One folder of images per class, or lists of images and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset

from eyetoy_mm.datasets.splits import class_images, class_names
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import DATASETS


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """mmpretrain's CustomDataset for local files, with what is wrong with them said by name before training.

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
            classes = [line.strip() for line in _lines(Path(data_root, classes))]
        super().__init__(ann_file=ann_file, data_root=data_root, classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Paths of the images, and their labels."""
        root = Path(self.img_prefix)
        pairs = list(self._listed() if self.ann_file else self._found(root))
        if not pairs:
            raise UserError(f"{self.ann_file or root} has no images")
        for path, _ in pairs:  # in the loader, an empty file would fail with a message that does not name it
            if not (root / path).is_file() or (root / path).stat().st_size == 0:
                listed = f", which {self.ann_file} lists," if self.ann_file else ""
                raise UserError(f"the image {root / path}{listed} is missing or empty; get it again or take it off")
        return [dict(img_path=str(root / path), gt_label=label) for path, label in pairs]

    def _found(self, root: Path) -> Iterator[tuple[str, int]]:
        if self.CLASSES is None:
            self._metainfo["classes"] = tuple(class_names(root))
        for label, name in enumerate(self.CLASSES):
            yield from ((path, label) for path in class_images(root, name))

    def _listed(self) -> Iterator[tuple[str, int]]:
        for number, line in enumerate(_lines(Path(self.ann_file)), start=1):
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal():
                raise UserError(f"{self.ann_file}, line {number}: {line!r} is not the path of an image and a label")
            if self.CLASSES is not None and int(label) >= len(self.CLASSES):
                raise UserError(
                    f"{self.ann_file}, line {number}: {path} has label {label}, but there are {len(self.CLASSES)} "
                    f"classes (labels 0 to {len(self.CLASSES) - 1})"
                )
            yield path, int(label)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
