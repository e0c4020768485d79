"""Predictions in the field's files: COCO's JSON, PNG masks, YOLO's text, crops."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eyetoy_mm.engine.predictions import Instances, Mask, Prediction, label_type, mask_of
from eyetoy_mm.errors import UserError
from eyetoy_mm.whole_files import write_whole

_LARGE = 100_000_000  # pixels, from which on masks are a TIFF in tiles and no PNG


@dataclass(frozen=True)
class Wanted:
    """Which files are written, beside pictures: the options ``--save-...``."""

    json: bool = False
    masks: bool = False
    txt: bool = False
    crops: bool = False

    def names(self) -> list[str]:
        """Names of the file and the folders that are written."""
        wanted = {"predictions.json": self.json, "masks": self.masks, "labels": self.txt, "crops": self.crops}
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def check(self, scope: str, has_masks: bool) -> None:
        """Check that a model predicts what is asked for.

        Args:
            scope: Its toolbox.
            has_masks: Whether it predicts a mask for each object.

        Raises:
            UserError: It does not.
        """
        if self.crops and scope != "mmdet":
            raise UserError("--save-crops cuts out detected objects, and this model detects none: leave it out")
        if self.txt and scope == "mmpretrain":
            raise UserError("--save-txt writes boxes and polygons, which a classifier has not: take --save-json")
        if self.masks and (scope == "mmpretrain" or (scope == "mmdet" and not has_masks)):
            raise UserError("--save-masks needs a model that predicts masks, and this one does not: leave it out")


class PredictionFiles:
    """Writes what is predicted, image by image.

    ``predictions.json``, ``masks/NAME.png``, ``labels/NAME.txt`` and ``crops/CLASS/NAME_0.png`` in one folder.

    Args:
        folder: The folder.
        classes: Names of the model's classes.
        wanted: Which files.
        category_ids: Ids of the classes in the JSON. When None COCO's own, where all classes are COCO's, else numbers
            from 1.

    Attributes:
        entries: What goes into the JSON: images, each with its annotations.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        wanted: Wanted,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        self.folder = folder
        self.classes = classes
        self.wanted = wanted
        self._ids = list(category_ids or _category_ids(classes))
        self.entries: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        self._used_ids: set[int | str] = set()
        self._next_id = 1

    def add(
        self,
        name: str,
        target: Path,
        prediction: Prediction,
        picture: np.ndarray | None = None,
        image_id: int | str | None = None,
    ) -> None:
        """Write the files of an image, and keep what goes into the JSON.

        Args:
            name: Of the image, as in the JSON.
            target: Name of its files: a path without suffix.
            prediction: What was predicted.
            picture: BGR of 8 bits, to cut crops out of; None for none.
            image_id: COCO's; when None the number that the file is called by, else the next that is free.
        """
        height, width = prediction.size
        image_id = self._free_id(target) if image_id is None else image_id
        self._used_ids.add(image_id)
        entry: dict[str, Any] = dict(id=image_id, file_name=name, width=width, height=height)
        if self.wanted.masks and (prediction.labels is not None or prediction.instances is not None):
            entry["mask"] = self._write_masks(target, prediction)
        if self.wanted.txt:
            self._file("labels", target, ".txt").write_text("".join(f"{line}\n" for line in self._yolo(prediction)))
        if self.wanted.crops and prediction.instances is not None and picture is not None:
            self._write_crops(target, prediction.instances, picture)
        if self.wanted.json:
            self.entries.append((entry, self._keep(entry, prediction)))

    def close(self) -> Path | None:
        """Write the JSON, if it is wanted; return its path."""
        if not self.wanted.json:
            return None
        categories = [dict(id=number, name=name) for number, name in zip(self._ids, self.classes)]
        annotations = [result for _, results in self.entries for result in results]
        for number, result in enumerate(annotations, 1):
            result["id"] = number
        content = dict(images=[entry for entry, _ in self.entries], categories=categories, annotations=annotations)
        path = self.folder / "predictions.json"
        write_whole(path, json.dumps(content) + "\n")
        return path

    def _free_id(self, target: Path) -> int:
        if target.name.isdecimal() and int(target.name) not in self._used_ids:
            return int(target.name)
        while self._next_id in self._used_ids:
            self._next_id += 1
        return self._next_id

    # --- JSON ---------------------------------------------------------------------------------------------------------

    def _keep(self, entry: dict[str, Any], prediction: Prediction) -> list[dict[str, Any]]:
        """Put into an image's entry what is predicted of the whole, and return what COCO has for each object."""
        if prediction.scores is not None:
            scores = [round(float(score), 6) for score in prediction.scores]
            best = int(prediction.scores.argmax())
            entry.update(category_id=self._ids[best], score=scores[best], scores=scores)
        if prediction.labels is not None:
            entry["segments"] = list(self._segments(prediction.labels, with_masks="mask" not in entry))
        found = prediction.instances
        return [] if found is None else list(self._results(found, entry["id"], prediction.size))

    def _segments(self, labels: np.ndarray, with_masks: bool) -> Iterator[dict[str, Any]]:
        """Each class of a label map: its share of the image, and its mask unless a file has them."""
        for label, pixels in enumerate(_counts(labels, len(self.classes))):
            if pixels:
                segment = dict(category_id=self._ids[label], area=int(pixels), share=round(pixels / labels.size, 6))
                if with_masks and labels.size <= _LARGE:
                    segment["segmentation"] = mask_of(labels == label).rle(labels.shape)  # type: ignore[arg-type]
                yield segment

    def _results(self, found: Instances, image_id: int | str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
        """COCO's results: what its ``loadRes`` takes."""
        for index, ((x1, y1, x2, y2), score, label) in enumerate(zip(found.boxes.tolist(), found.scores, found.labels)):
            result = dict(
                image_id=image_id,
                category_id=self._ids[label],
                bbox=[round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                area=round((x2 - x1) * (y2 - y1), 3),
                score=round(float(score), 6),
                iscrowd=0,
            )
            if found.masks is not None:
                result.update(segmentation=found.masks[index].rle(size), area=found.masks[index].area())
            yield result

    # --- Files of an image --------------------------------------------------------------------------------------------

    def _file(self, kind: str, target: Path, suffix: str) -> Path:
        path = self.folder / kind / target.with_name(target.name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_masks(self, target: Path, prediction: Prediction) -> str:
        """Write a label map, or the number of the object at each pixel, from 1; return its path in the folder."""
        if prediction.labels is not None:
            pixels = prediction.labels.astype(label_type(len(self.classes)), copy=False)
        else:
            found = prediction.instances
            assert found is not None
            pixels = _numbers(found.masks or [], prediction.size)
        is_tiff = pixels.size > _LARGE or pixels.dtype.itemsize > 2  # a PNG has 16 bits at most
        path = self._file("masks", target, ".tif" if is_tiff else ".png")
        (write_tiff if is_tiff else _write_png)(path, pixels)
        return path.relative_to(self.folder).as_posix()

    def _yolo(self, prediction: Prediction) -> Iterator[str]:
        """A line for each object: its class and box, or its class and polygon where there are masks; from 0 to 1."""
        height, width = prediction.size
        if prediction.labels is not None:
            for label in np.flatnonzero(_counts(prediction.labels, len(self.classes))):
                yield from _yolo_polygons(int(label), mask_of(prediction.labels == label), prediction.size)
        found = prediction.instances
        if found is None:
            return
        for index, ((x1, y1, x2, y2), label) in enumerate(zip(found.boxes.tolist(), found.labels)):
            if found.masks is not None:
                polygon = joined_polygon(found.masks[index])
                if polygon is not None:
                    yield _yolo_line(int(label), polygon, prediction.size)
            else:
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                yield f"{int(label)} " + " ".join(f"{value:.6f}" for value in box)

    def _write_crops(self, target: Path, found: Instances, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        for index, ((x1, y1, x2, y2), label) in enumerate(zip(found.boxes, found.labels)):
            left, top = max(0, int(np.floor(x1))), max(0, int(np.floor(y1)))
            right, bottom = min(width, int(np.ceil(x2))), min(height, int(np.ceil(y2)))
            if left < right and top < bottom:
                name = re.sub(r"[^\w.-]+", "_", str(self.classes[label])).strip(".") or "_"
                path = self._file(f"crops/{name}", target.with_name(f"{target.name}_{index}"), ".png")
                _write_png(path, picture[top:bottom, left:right])


def _category_ids(classes: Sequence[str]) -> list[int]:
    """COCO's own ids where all classes are COCO's, which has gaps; else numbers from 1."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if all(name in coco for name in classes):
        return [coco.index(name) for name in classes]
    return list(range(1, len(classes) + 1))


def _counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class, of a map that may be on a disk."""
    counts = np.zeros(num_classes, np.int64)
    for top in range(0, len(labels), 1024):
        rows = np.asarray(labels[top : top + 1024])
        counts += np.bincount(rows[(rows >= 0) & (rows < num_classes)].ravel(), minlength=num_classes)
    return counts


def _numbers(masks: Sequence[Mask], size: tuple[int, int]) -> np.ndarray:
    """The number of the mask at each pixel, from 1; of several the first, which has the highest score."""
    picture = np.zeros(size, np.uint16 if len(masks) <= np.iinfo(np.uint16).max else np.uint32)
    for number, (inside, x, y) in reversed(list(enumerate(masks, 1))):
        height, width = inside.shape
        picture[y : y + height, x : x + width][inside] = number
    return picture


def _write_png(path: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(path), picture):
        raise UserError(f"{path} cannot be written")


def write_tiff(path: Path, labels: np.ndarray) -> None:
    """Write labels, or numbers of objects, as a compressed TIFF in tiles, of which a few are in memory at a time.

    Raises:
        UserError: tifffile is not installed.
    """
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise UserError("masks of this size are written as a TIFF: pip install 'eyetoy-mm[tiff]'") from error
    side = 512
    height, width = labels.shape
    pieces = (
        np.pad(
            piece := np.asarray(labels[top : top + side, left : left + side]),
            ((0, side - piece.shape[0]), (0, side - piece.shape[1])),
        )
        for top in range(0, height, side)
        for left in range(0, width, side)
    )
    tifffile.imwrite(
        path, pieces, shape=labels.shape, dtype=labels.dtype, tile=(side, side), compression="zlib", maxworkers=1,
        photometric="minisblack",
    )  # fmt: skip


# --- Polygons -------------------------------------------------------------------------------------------------------


def _yolo_polygons(label: int, mask: Mask, size: tuple[int, int]) -> Iterator[str]:
    """A line for each connected part of a class."""
    for part in _outlines(mask):
        yield _yolo_line(label, part, size)


def _yolo_line(label: int, polygon: np.ndarray, size: tuple[int, int]) -> str:
    height, width = size
    values = (polygon / [width, height]).clip(0, 1).ravel()
    return f"{label} " + " ".join(f"{value:.6f}" for value in values)


def joined_polygon(mask: Mask) -> np.ndarray | None:
    """One polygon ``(N, 2)`` of x and y around all parts of an object, as YOLO has one for each; None for no pixels.

    Parts are joined by lines to their nearest points, there and back; holes are filled.
    """
    parts = sorted(_outlines(mask), key=len, reverse=True)
    if not parts:
        return None
    polygon = parts[0]
    for part in parts[1:]:
        distances = np.linalg.norm(polygon[:, None] - part[None], axis=2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        around = np.roll(part, -int(there), axis=0)
        polygon = np.concatenate([polygon[: here + 1], around, around[:1], polygon[here:]])
    return polygon


def _outlines(mask: Mask) -> list[np.ndarray]:
    """The outline ``(N, 2)`` of each connected part, in pixels of the image."""
    outlines, _ = cv2.findContours(mask.inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [outline[:, 0].astype(float) + np.array([mask.x, mask.y]) for outline in outlines]
    return [part if len(part) >= 3 else np.repeat(part, 3, axis=0)[:3] for part in parts]
