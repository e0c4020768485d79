"""Lists and folders of mmpretrain's datasets looked at before a run: lines that are none, labels without an output."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from eyetoy_mm.datasets.files import absent, odd_line, why_not_listed
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join


def open_lazily(dataset: dict) -> CustomDataset | None:
    """A dataset that reads lists or class folders as mmpretrain's ``CustomDataset``, built without reading them.

    Args:
        dataset: Its config.

    Returns:
        None for datasets of another kind, for files at addresses, and for settings that are told where it is built.
    """
    kind: Any = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if getattr(kind, "load_data_list", None) is not CustomDataset.load_data_list:
        return None
    try:
        built = DATASETS.build({**copy.deepcopy(dict(dataset)), "type": kind, "lazy_init": True})
    except Exception:  # whatever a class raises of its settings
        return None
    return None if any(map(is_address, (built.ann_file, built.img_prefix))) else built


def classes_of(built: CustomDataset) -> tuple[str, ...]:
    """Names of the classes: of the config, or of the folders; none where a list without names says the labels."""
    if built.CLASSES is not None:
        return tuple(built.CLASSES)
    if built.ann_file or not built.with_label:
        return ()
    return tuple(sorted(path.name for path in Path(built.img_prefix).iterdir() if path.is_dir()))


def list_findings(built: CustomDataset, outputs: int | None, skip: float = 0.0) -> list[Finding]:
    """What is wrong with the list of a dataset, or with its folders.

    Args:
        built: The dataset.
        outputs: How many classes the model tells apart; None if it does not say.
        skip: The share of images that may be missing.
    """
    try:
        if not built.ann_file:
            return list(_folder_findings(built))
        lines = Path(built.ann_file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        return [Finding("list of images", why_not_listed(error))]
    except UnicodeDecodeError as error:
        return [Finding("list of images", f"{built.ann_file} is no text in UTF-8: {error}")]
    if not built.with_label:
        return list(_missing(built, lines, skip))
    found = list(_line_findings(built, lines))
    if found:
        return found
    pairs = [line.strip().rsplit(" ", 1) for line in lines]
    labels = [int(label) for _, label in pairs]
    found = list(_label_findings(built, labels, outputs or len(classes_of(built))))
    return [*found, *_missing(built, [path for path, _ in pairs], skip)]


def _folder_findings(built: CustomDataset) -> Iterator[Finding]:
    folder = Path(built.img_prefix)
    inside = sorted(folder.iterdir())
    folders = [path for path in inside if path.is_dir()]
    if built.with_label and not folders:
        files = f"it has {len(inside)} files" if inside else "it is empty"
        message = f"{folder} should have a folder of images for each class; {files}"
        yield Finding("class folders", f"{message}. Put them into folders, or list them with their labels: ann_file")
    elif built.with_label and built.CLASSES is not None and len(folders) != len(built.CLASSES):
        names = first_few(path.name for path in folders)
        message = f"{folder} has {len(folders)} folders ({names}), and the dataset {len(built.CLASSES)} classes"
        yield Finding("class folders", f"{message}: set metainfo=dict(classes=...), or data_prefix, to what is there")


def _line_findings(built: CustomDataset, lines: Sequence[str]) -> Iterator[Finding]:
    wrong = [number for number, line in enumerate(lines, 1) if not _is_pair(line)]
    if not lines:
        yield Finding(
            "list of images", f"{built.ann_file} is empty; it should list images and their labels, a line each"
        )
        return
    if not wrong:
        if odd := odd_line(lines):
            yield Finding("list of images", f"{built.ann_file}: {odd}")
        return
    line = lines[wrong[0] - 1]
    remedy = "write the path, a blank, and the number of the class, from 0 on"
    if not line.strip():
        remedy = "take the empty line out"
    elif wrong == [1] and len(lines) > 1:
        remedy = "a list has no header; take the line out"
    elif len(line.replace("\t", ",").split(",")) == 2:
        remedy = "write a blank between path and label, not a comma or tab"
    message = f"{built.ann_file}, line {wrong[0]}: {line!r} is not the path of an image and a label: {remedy}"
    yield Finding("list of images", message, tuple(f"line {number}" for number in wrong[:5]), len(wrong))


def _is_pair(line: str) -> bool:
    path, _, label = line.strip().rpartition(" ")
    return bool(path) and label.removeprefix("-").isdecimal()


def _label_findings(built: CustomDataset, labels: Sequence[int], outputs: int) -> Iterator[Finding]:
    wrong = [number for number, label in enumerate(labels, 1) if label < 0 or (outputs and label >= outputs)]
    if wrong:
        hint = ""
        if min(labels) == 1 and max(labels) == outputs:
            hint = " They are counted from 1: take 1 from each."
        message = (
            f"{built.ann_file} has labels that the model has no output for, such as {labels[wrong[0] - 1]} in line "
            f"{wrong[0]}; it has {outputs}, labels 0 to {outputs - 1}.{hint} Correct the list, or num_classes"
        )
        yield Finding("label out of range", message, tuple(f"line {number}" for number in wrong[:5]), len(wrong))
    elif len(labels) > 1 and len(set(labels)) == 1 and outputs > 1:
        yield Finding("one label", f"{built.ann_file} has label {labels[0]} in every line", fatal=False)


def _missing(built: CustomDataset, names: Sequence[str], skip: float) -> Iterator[Finding]:
    missing = absent([join(built.img_prefix, name) for name in names])
    if missing:
        message = f"{built.ann_file} lists {len(missing)} images (of {len(names)}) that are not in {built.img_prefix}"
        advice = "Put them there, take them off the list, or set data_prefix of the dataset"
        fatal = len(missing) > skip * len(names)
        yield Finding("images missing", f"{message}. {advice}", tuple(missing), fatal=fatal)
