"""Images and masks of segmentation looked at before a run: what mmseg would ignore, mix up, or fail at without a name.

mmseg trains on whatever numbers the masks hold: 255 is ignored, so that masks of 0 and 255 teach nothing and score
100 %, and masks in colour or of another size end in an error of a tensor's shape.
"""

from __future__ import annotations

import copy
import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import get as read_bytes
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address
from eyetoy_mm.registry import type_name

SAMPLE = 50  # masks of a split that are opened
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def segmentation_findings(
    split: str, dataset: dict, num_classes: int | None, ignore_index: int = 255, sample: int = SAMPLE
) -> list[Finding]:
    """What is wrong with a segmentation dataset: all of its file names, and some of its masks.

    Args:
        split: What it is for, for the messages.
        dataset: Its config; of another class than mmseg's datasets of folders it is left alone.
        num_classes: Of the model; None to take the dataset's classes.
        ignore_index: The label that the loss ignores.
        sample: How many masks are opened, spread over the dataset.
    """
    kind: Any = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, BaseSegDataset)):
        return []
    try:
        built = DATASETS.build({**copy.deepcopy(dict(dataset)), "type": kind, "lazy_init": True})
        folders = [built.data_prefix.get(key) for key in ("img_path", "seg_map_path")]
        if any(folder and is_address(folder) for folder in folders):
            return []
        items = built.load_data_list()
    except ImportError:  # a client of other storage is not installed, which is told by itself
        raise
    except Exception as error:  # whatever mmseg raises of settings and lists that it does not expect
        message = f"{split}: {kind.__name__} cannot read its list: {type(error).__name__}: {error}"
        return [Finding("unreadable dataset", message)]
    found = list(_name_findings(built, items))
    if not any(finding.fatal for finding in found):
        chosen = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(sample, len(items))).astype(int))]
        classes = num_classes or len(built.metainfo.get("classes") or ()) or None
        found += _mask_findings(dataset, chosen, classes, ignore_index)
    return [Finding(f.kind, f"{split}: {f.message}", f.where, f.count, f.fatal) for f in found]


# --- Names ------------------------------------------------------------------------------------------------------------


def _name_findings(built: BaseSegDataset, items: Sequence[dict]) -> Iterator[Finding]:
    """Images and masks that have no partner, or that nobody would read."""
    folder = Path(built.data_prefix.get("img_path") or ".")
    suffixes = Counter(p.suffix for p in folder.rglob("*") if p.suffix.lower() in _IMAGES) if folder.is_dir() else {}
    others = {suffix: count for suffix, count in suffixes.items() if not built.img_suffix.endswith(suffix)}
    listed = ", ".join(f"{suffix} ({count})" for suffix, count in others.items())
    if not items:
        what = f"it has files of {listed}" if others else "it has no images"
        yield Finding("no images", f"{folder} has no image that ends in img_suffix={built.img_suffix!r}; {what}. "
                      "Set img_suffix of the dataset, or data_prefix=dict(img_path=...)", (str(folder),))  # fmt: skip
        return
    if others and not built.ann_file:
        message = f"{folder} has files that do not end in img_suffix={built.img_suffix!r} and are not used: {listed}"
        yield Finding("images left out", message, count=sum(others.values()), fatal=False)
    missing = _absent([item["img_path"] for item in items])
    if missing:
        message = f"{len(missing)} of {len(items)} images are listed in {built.ann_file} and are not there"
        yield Finding("images missing", f"{message}. Correct the list, or img_suffix={built.img_suffix!r}", missing)
    without = set(missing)
    pairs = {x["seg_map_path"]: x["img_path"] for x in items if x.get("seg_map_path") and x["img_path"] not in without}
    masks = list(pairs)
    if not masks or (built.test_mode and not _loads_masks(built)):
        return
    missing = _absent(masks)
    if missing:
        stem = Path(pairs[missing[0]]).name.removesuffix(built.img_suffix)
        ends = sorted(
            p.name.removeprefix(stem)
            for p in Path(missing[0]).parent.glob(f"{glob.escape(stem)}*")
            if not p.name.removeprefix(stem)[:1].isalnum()  # 10.png is none of 1.jpg
        )
        hint = f"; there is {stem}{f', {stem}'.join(ends)}" if ends else ""
        message = f"{len(missing)} of {len(masks)} images have no mask{hint}"
        advice = f"Add them, set seg_map_suffix (now {built.seg_map_suffix!r}), or take the images off the list"
        yield Finding("masks missing", f"{message}. {advice}", missing)
    elif not built.ann_file and built.data_prefix["seg_map_path"] != built.data_prefix["img_path"]:
        folder, used = Path(built.data_prefix["seg_map_path"]), {Path(mask) for mask in masks}
        spare = [str(p) for p in folder.rglob(f"*{built.seg_map_suffix}") if p not in used]
        if spare:
            yield Finding("masks left out", f"{len(spare)} masks have no image", tuple(spare), fatal=False)


def _absent(paths: Sequence[str]) -> tuple[str, ...]:
    """Those that are not there; whole folders are listed at a time, which network disks need."""
    parents = {Path(path).parent for path in paths}
    present = {p for parent in parents if parent.is_dir() for p in parent.iterdir()}
    return tuple(path for path in paths if Path(path) not in present)


def _loads_masks(built: BaseSegDataset) -> bool:
    return any(type(step).__name__ == "LoadAnnotations" for step in built.pipeline.transforms)


# --- Masks ------------------------------------------------------------------------------------------------------------


def _mask_findings(
    dataset: dict, items: Sequence[dict], num_classes: int | None, ignore_index: int
) -> Iterator[Finding]:
    """What the numbers in some masks say, as the pipeline loads them."""
    load = next((step for step in dataset.get("pipeline") or () if type_name(step) == "LoadAnnotations"), None)
    if load is None:
        return
    loader, backend = TRANSFORMS.build(copy.deepcopy(dict(load))), load.get("imdecode_backend") or "pillow"
    faults: dict[tuple[str, str], list[str]] = {}
    raw_values, labels_seen, ignored, some_ignored = set[int](), set[int](), 0, False
    for item in items:
        path = item["seg_map_path"]
        try:
            fault, raw, labels = _look_at(item, loader, backend, num_classes, ignore_index)
        except Exception as error:  # whatever a decoder or a step raises of a file
            faults.setdefault(("masks unreadable", f"cannot be loaded: {type(error).__name__}: {error}"), []).append(
                path
            )
            continue
        if fault is not None:
            faults.setdefault(fault, []).append(path)
        if labels is not None and raw is not None:
            raw_values.update(raw)
            seen = [label for label in labels if label != ignore_index]
            labels_seen.update(seen)
            ignored += not seen
            some_ignored |= len(seen) < len(labels)
    for (kind, message), paths in faults.items():
        yield Finding(kind, f"{len(paths)} of the {len(items)} masks looked at {message}", tuple(paths))
    if faults or not raw_values:
        return
    where = tuple(item["seg_map_path"] for item in items)
    if ignored == len(items):
        message = (
            f"in all {len(items)} masks looked at every pixel is {ignore_index} after loading, which is ignored: the "
            f"loss would be 0 and every score undefined. They hold {_numbers(raw_values)}. Check "
            "them, and reduce_zero_label"
        )
        yield Finding("nothing but ignored", message, where)
    elif num_classes and num_classes >= 2 and set(labels_seen) == {0} and some_ignored:
        what, advice = f"{ignore_index} is ignored", f"Write 1 where the masks have {ignore_index}"
        if ignore_index not in raw_values:
            what = "reduce_zero_label takes 1 from each, and ignores what was 0"
            advice = "Set reduce_zero_label=False, of the dataset and of LoadAnnotations"
        message = (
            f"the {len(items)} masks looked at hold {_numbers(raw_values)} alone, and {what}: only "
            f"label 0 of {num_classes} is left, which any model gets right. {advice}"
        )
        yield Finding("one label and ignored", message, where, fatal=num_classes == 2)
    elif num_classes and num_classes >= 2 and len(labels_seen) == 1 and len(items) > 1:
        label = next(iter(labels_seen))
        yield Finding("one label", f"the {len(items)} masks looked at have no label but {label}", where, fatal=False)


def _look_at(
    item: dict, loader: Any, backend: str, num_classes: int | None, ignore_index: int
) -> tuple[tuple[str, str] | None, list[int] | None, list[int] | None]:
    """A fault (its kind, what of it), the numbers in a file, and the labels that they become."""
    pixels = mmcv.imfrombytes(read_bytes(item["seg_map_path"]), flag="unchanged", backend=backend)
    if pixels.squeeze().ndim > 2:
        message = (
            f"are in colour ({pixels.shape[2]} channels); a mask has one number for each pixel, the class: convert "
            "them, as grey or palette images of 8 bits"
        )
        return ("masks in colour", message), None, None
    raw = np.unique(pixels).tolist()
    if raw[-1] > 255:
        message = "hold numbers above 255, and 8 bits are loaded: 256 becomes 0. Number the classes below 255"
        return ("labels beyond 255", message), raw, None
    height, width = pixels.shape[:2]
    try:
        with Image.open(item["img_path"]) as image:
            size, turned = image.size, image.getexif().get(0x0112, 1) >= 5
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # no image: told by what loads it
        size, turned = (width, height), False
    if (width, height) != size and not (turned and (height, width) == size):
        mask, image_file = Path(item["seg_map_path"]).name, Path(item["img_path"]).name
        example = f"{mask} is {width} x {height}, {image_file} {size[0]} x {size[1]}"
        return ("sizes of masks", f"are of another size than their images: {example}"), raw, None
    labels = np.unique(loader.transform({**item, "seg_fields": []})["gt_seg_map"]).tolist()
    wrong = [label for label in labels if label != ignore_index and not 0 <= label < (num_classes or 256)]
    if wrong:
        message = (
            f"have labels that the model has no class for ({_numbers(wrong)} after loading; it has 0 to "
            f"{(num_classes or 0) - 1}, and {ignore_index} is ignored). Check the masks, num_classes, and "
            "reduce_zero_label, which takes 1 from every label"
        )
        return ("labels out of range", message), raw, labels
    return None, raw, labels


def _numbers(values: Any) -> str:
    return first_few(map(str, sorted(values)), 8)
