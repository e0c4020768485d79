"""Segmentation data looked at before a run: names of images and masks, and some masks."""

from __future__ import annotations

import copy
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from eyetoy_mm.datasets.files import absent, files_below, odd_line, why_missing, why_not_listed
from eyetoy_mm.datasets.findings import Finding, listed_twice, repeated
from eyetoy_mm.datasets.guarded_loading import mask_step
from eyetoy_mm.datasets.image_files import SWAPS_SIDES, Fault, read_header, size_fault
from eyetoy_mm.datasets.masks import Labelling, Mask, look_at_mask, together_findings
from eyetoy_mm.datasets.splits import is_image
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.paths import is_address

SAMPLE = 50  # masks of a split that are opened


@dataclass
class Looked:
    """What was found of a dataset.

    Args:
        findings: What is wrong with it.
        images: Paths of its images.
        masks: Paths of the masks that were opened, and what was found in each.
        classes: Names of its labels.
    """

    findings: list[Finding] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    masks: list[tuple[str, Mask]] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def look_at_segmentation(
    split: str, dataset: dict, num_classes: int | None, ignore_index: int = 255, sample: int = SAMPLE
) -> Looked:
    """What is wrong with a segmentation dataset: all of its file names, and some of its masks.

    Args:
        split: What it is for, for the messages.
        dataset: Its config; of another class than mmseg's datasets of folders it is left alone.
        num_classes: Of the model; None to take the dataset's classes.
        ignore_index: The label that the loss ignores.
        sample: How many masks are opened, spread over the dataset.
    """
    kind = segmentation_class(dataset)
    if kind is None:
        return Looked()
    try:
        built = DATASETS.build({**copy.deepcopy(dict(dataset)), "type": kind, "lazy_init": True})
        folders = [built.data_prefix.get(key) for key in ("img_path", "seg_map_path")]
        if any(folder and is_address(folder) for folder in folders):
            return Looked()
        items = built.load_data_list()
    except ImportError:  # a client of other storage is not installed, which is told by itself
        raise
    except OSError as error:
        return Looked([Finding("unreadable dataset", f"{split}: {why_not_listed(error)}")])
    except Exception as error:  # whatever mmseg raises of settings and lists that it does not expect
        message = f"{split}: {kind.__name__} cannot read its list: {type(error).__name__}: {error}"
        return Looked([Finding("unreadable dataset", message)])
    looked = Looked(list(_name_findings(built, items)), [item["img_path"] for item in items])
    looked.classes = tuple(built.metainfo.get("classes") or ())
    step = mask_step(built.pipeline)
    if step is not None and not any(finding.fatal for finding in looked.findings):
        chosen = [items[index] for index in spread(len(items), sample)]
        labelling = Labelling.of(built, step, num_classes, ignore_index)
        if contrary := _contrary_steps(labelling):
            looked.findings.append(contrary)
        else:
            looked.masks = [(item["seg_map_path"], look_at_mask(item["seg_map_path"], labelling)) for item in chosen]
            looked.findings += _mask_findings(chosen, looked.masks, labelling)
    looked.findings = [Finding(f.kind, f"{split}: {f.message}", f.where, f.count, f.fatal) for f in looked.findings]
    return looked


def segmentation_class(dataset: dict) -> type[BaseSegDataset] | None:
    """The class of a dataset's config, if it is one of mmseg's datasets of folders."""
    kind: Any = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) and issubclass(kind, BaseSegDataset) else None


# --- Names ------------------------------------------------------------------------------------------------------------


def _name_findings(built: BaseSegDataset, items: Sequence[dict]) -> Iterator[Finding]:
    """Images and masks that have no partner, or that nobody would read."""
    folder = Path(built.data_prefix.get("img_path") or ".")
    if not items and built.ann_file and Path(built.ann_file).is_file():
        yield Finding("no images", f"{built.ann_file} is empty; it should list images, a line each", (built.ann_file,))
        return
    others = _unused(built, folder)
    listed = ", ".join(f"{suffix} ({count})" for suffix, count in others.items())
    if not items:
        what = f"it has files of {listed}" if others else "it has no images"
        yield Finding("no images", f"{folder} has no image that ends in img_suffix={built.img_suffix!r}; {what}. "
                      "Set img_suffix of the dataset, or data_prefix=dict(img_path=...)", (str(folder),))  # fmt: skip
        return
    if others and not built.ann_file:
        message = f"{folder} has files that do not end in img_suffix={built.img_suffix!r} and are not used: {listed}"
        yield Finding("images left out", message, count=sum(others.values()), fatal=False)
    if twice := repeated(item["img_path"] for item in items):
        yield listed_twice(twice, f"{built.ann_file} ")
    if own := [item["img_path"] for item in items if item["img_path"] == item.get("seg_map_path")]:
        message = f"{len(own)} of {len(items)} images are their own masks: what is to be found is what is shown"
        yield Finding("images for masks", f"{message}. Set img_path and seg_map_path of data_prefix", tuple(own))
        return
    missing = absent([item["img_path"] for item in items])
    if missing:
        listed = f" are listed in {built.ann_file} and" if built.ann_file else ""
        message = f"{len(missing)} of {len(items)} images{listed} are not there. {_why_not_there(built, missing[0])}"
        yield Finding("images missing", message, tuple(missing))
    without = set(missing)
    pairs = {
        str(Path(x["seg_map_path"])): x["img_path"]
        for x in items
        if x.get("seg_map_path") and str(Path(x["img_path"])) not in without
    }
    masks = list(pairs)
    if mask_step(built.pipeline) is not None and not any(item.get("seg_map_path") for item in items):
        message = "the pipeline loads masks, and nothing says where they are: set data_prefix=dict(seg_map_path=...)"
        yield Finding("masks missing", message)
        return
    if not masks or (built.test_mode and mask_step(built.pipeline) is None):
        return
    missing = absent(masks)
    if missing:
        stem = Path(pairs[missing[0]]).name.removesuffix(built.img_suffix)
        ends = sorted(
            p.name.removeprefix(stem)
            for p in Path(missing[0]).parent.glob(f"{glob.escape(stem)}*")
            if not p.name.removeprefix(stem)[:1].isalnum() and p.is_file()  # 10.png is none of 1.jpg
        )
        hint = f"; there is {stem}{f', {stem}'.join(ends)}" if ends else ""
        message = f"{len(missing)} of {len(masks)} images have no mask{hint}"
        advice = f"Add them, set seg_map_suffix (now {built.seg_map_suffix!r}), or take the images off the list"
        if _named_twice(built, pairs[missing[0]]):
            message = f"{len(missing)} of the images found are masks, beside the images and with the same suffix"
            advice = "Move the masks to a folder of their own, or list the images: ann_file of the dataset"
        yield Finding("masks missing", f"{message}. {advice}", tuple(missing))
    elif not built.ann_file and built.data_prefix["seg_map_path"] != built.data_prefix["img_path"]:
        folder, used = Path(built.data_prefix["seg_map_path"]), {Path(mask) for mask in masks}
        there = files_below(folder) if folder.is_dir() else ()
        spare = [str(p) for p in there if p.name.endswith(built.seg_map_suffix) and p not in used]
        if spare:
            yield Finding("masks left out", f"{len(spare)} masks have no image", tuple(spare), fatal=False)


def _unused(built: BaseSegDataset, folder: Path) -> dict[str, int]:
    """Suffixes of images in a folder that the dataset does not take, and how many; masks beside the images are none."""
    suffixes = Counter(
        path.suffix
        for path in (files_below(folder) if folder.is_dir() else ())
        if is_image(path.name) and not path.name.endswith((built.img_suffix, built.seg_map_suffix))
    )  # fmt: skip
    return dict(suffixes)


def _why_not_there(built: BaseSegDataset, first: str) -> str:
    """What to do about a list that names images which are not there."""
    text = Path(built.ann_file).read_text(encoding="utf-8", errors="replace") if built.ann_file else ""
    names = text.splitlines()
    if odd := odd_line(names):
        return odd
    if first.endswith(f"{built.img_suffix}{built.img_suffix}"):
        return f"The list should have names without img_suffix={built.img_suffix!r}"
    folder = Path(built.data_prefix["img_path"])
    why = why_missing(os.path.relpath(first, folder), folder, "path")
    return f"{why}Correct the list, or img_suffix={built.img_suffix!r}" if names else f"{why}Put the files there"


def _named_twice(built: BaseSegDataset, image: str) -> bool:
    """Whether a mask was taken for an image: it lies among the images, and ends as they do."""
    return image.endswith(built.seg_map_suffix) and built.seg_map_suffix.endswith(built.img_suffix)


# --- Masks ------------------------------------------------------------------------------------------------------------


def _contrary_steps(labelling: Labelling) -> Finding | None:
    """The finding of a step that counts labels from elsewhere than the dataset, which mmseg does not take."""
    of_step, of_dataset = getattr(labelling.step, "reduce_zero_label", None), labelling.settings["reduce_zero_label"]
    if of_step is None or of_step == of_dataset:
        return None
    message = f"the dataset has {of_dataset}, its LoadAnnotations {of_step}, at which mmseg fails"
    return Finding("reduce_zero_label", f"{message}. Write the same in both, or leave it out of LoadAnnotations")


def _mask_findings(items: Sequence[dict], masks: Sequence[tuple[str, Mask]], labelling: Labelling) -> Iterator[Finding]:
    """What the numbers in some masks say, as the pipeline loads them."""
    faults: dict[Fault, list[str]] = {}
    for item, (path, mask) in zip(items, masks):
        for fault in (*mask.report.faults, *_of_another_size(item["img_path"], mask)):
            if fault.kind != "masks without labels":  # which is told of all together
                faults.setdefault(fault, []).append(fault.of(path))
    for fault, paths in faults.items():
        yield Finding(fault.kind, fault.message, tuple(paths), fatal=fault.fatal)
    if not any(fault.fatal for fault in faults):
        yield from together_findings(masks, labelling)


def _of_another_size(image: str, mask: Mask) -> Iterator[Fault]:
    """The fault of a mask that is not of its image's size, held this way or that."""
    header = read_header(image)
    if header is None or mask.size is None:  # no image: told by what loads it
        return
    turned = header.orientation in SWAPS_SIDES and mask.size == header.size[::-1]
    if mask.size != header.size and not turned:
        yield size_fault(mask.size, header.size)
