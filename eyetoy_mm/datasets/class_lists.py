"""Lists and folders of mmpretrain's datasets looked at before a run: lines that are none, labels without an output."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from eyetoy_mm.datasets.files import absent, odd_line, why_missing, why_not_listed
from eyetoy_mm.datasets.findings import Finding, listed_twice, repeated
from eyetoy_mm.datasets.splits import is_image
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join

# Folders that programs and systems leave beside those of people.
_NO_CLASSES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass
class Listed:
    """What the files of a dataset say, as far as they can be read.

    Args:
        findings: What is wrong with them.
        classes: Names of the classes: of the config, of the folders or of the file; none where nothing names them.
        paths: Of the images.
        several: Whether an image has several labels, or none.
        labels: The label of each folder, where each has one of its own.
    """

    findings: list[Finding] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    several: bool = False
    labels: dict[str, int] = field(default_factory=dict)


def look_at_list(dataset: dict, outputs: int | None, skip: float = 0.0) -> Listed | None:
    """What is wrong with the list of a dataset, or with its folders.

    Args:
        dataset: Its config.
        outputs: How many classes the model tells apart; None if it does not say.
        skip: The share of images that may be missing.

    Returns:
        None for datasets that read neither lists or class folders as mmpretrain's ``CustomDataset`` nor the JSON of
        OpenMMLab, for files at addresses, and for settings that are told where it is built.
    """
    kind: Any = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    reads = getattr(kind, "load_data_list", None)
    if reads not in (CustomDataset.load_data_list, BaseDataset.load_data_list):
        return None
    try:
        built = DATASETS.build({**copy.deepcopy(dict(dataset)), "type": kind, "lazy_init": True})
    except Exception:  # whatever a class raises of its settings
        return None
    folder = built.data_prefix.get("img_path")
    if not isinstance(folder, str) or is_address(folder) or is_address(built.ann_file):
        return None
    try:
        look = _look_at_custom if isinstance(built, CustomDataset) else _look_at_json
        return look(built, outputs, skip)
    except OSError as error:
        return Listed([Finding("list of images", why_not_listed(error))])
    except UnicodeDecodeError as error:
        return Listed([Finding("list of images", f"{built.ann_file} is no text in UTF-8: {error}")])


# --- Folders ----------------------------------------------------------------------------------------------------------


def _look_at_custom(built: CustomDataset, outputs: int | None, skip: float) -> Listed:
    listed = Listed(classes=tuple(built.CLASSES or ()))
    if built.ann_file:
        _look_at_lines(built, Path(built.ann_file).read_text(encoding="utf-8").splitlines(), outputs, skip, listed)
    elif built.with_label:
        folders = sorted(path.name for path in Path(built.img_prefix).iterdir() if path.is_dir())
        listed.classes = listed.classes or tuple(folders)
        listed.findings += _folder_findings(built, folders)
        listed.labels = {name: label for label, name in enumerate(folders)}
        listed.findings += _look_into(built, folders, listed.paths)
    else:
        listed.findings += _look_into(built, ["."], listed.paths)
    return listed


def _folder_findings(built: CustomDataset, folders: list[str]) -> Iterator[Finding]:
    """Folders that are no classes, and names that are not theirs: mmpretrain counts folders, and compares no name."""
    folder, names = built.img_prefix, tuple(built.CLASSES or ())
    if not folders:
        count = len(os.listdir(folder))
        files = f"it has {count} files" if count else "it is empty"
        message = f"{folder} should have a folder of images for each class; {files}"
        yield Finding("class folders", f"{message}. Put them into folders, or list them with their labels: ann_file")
    elif hidden := [name for name in folders if name.startswith(".") or name in _NO_CLASSES]:
        message = f"{folder} has {first_few(hidden)}, which counts as a class, and moves the labels of those after it"
        yield Finding("class folders", f"{message}. Take it out", tuple(join(folder, name) for name in hidden))
    elif len(folders) > 1 and _SPLITS.issuperset(map(str.lower, folders)) and sorted(names) != folders:
        message = f"{folder} has {first_few(folders)}, which are no classes but parts of the data, and count as classes"
        advice = "Set data_prefix to one of them, or name them as they are in metainfo=dict(classes=...)"
        yield Finding("class folders", f"{message}. {advice}")
    elif names and len(folders) != len(names):
        message = f"{folder} has {len(folders)} folders ({first_few(folders)}), and the dataset {len(names)} classes"
        yield Finding("class folders", f"{message}: set metainfo=dict(classes=...), or data_prefix, to what is there")
    elif moved := [label for label, name in enumerate(names) if name in folders and name != folders[label]]:
        label = moved[0]
        message = (
            f"label {label} is the folder {folders[label]} of {folder}, and the classes of the dataset call it "
            f"{names[label]!r}, the name of another folder: mmpretrain numbers folders in the order of their names, "
            "whatever the classes are. Write the classes in that order, or leave them out"
        )
        yield Finding("classes", message, count=len(moved))


def _look_into(built: CustomDataset, folders: list[str], paths: list[str]) -> Iterator[Finding]:
    """Folders without an image, and images of suffixes that the dataset does not take; the others go into paths."""
    empty, suffixes = [], Counter[str]()
    for name in folders:
        before = len(paths)
        for parent, _, files in os.walk(os.path.join(built.img_prefix, name), followlinks=True):
            for file in files:
                if file.startswith("."):
                    continue
                if built.is_valid_file(file):
                    paths.append(os.path.join(parent, file))
                elif is_image(file):
                    suffixes[os.path.splitext(file)[1]] += 1
        if len(paths) == before:
            empty.append(name)
    others = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.items())
    takes = f"{built.img_prefix} has files of {others}, and the dataset takes {', '.join(sorted(built.extensions))}"
    remedy = "Set extensions of the dataset, or convert them"
    if not paths:
        reason = takes if others else f"{built.img_prefix} has no image"
        yield Finding("no images", f"{reason}. {remedy if others else 'Set data_prefix of the dataset'}")
        return
    if others:
        yield Finding("images left out", f"{takes}: these are left out. {remedy}", count=suffixes.total(), fatal=False)
    if empty and built.with_label:
        message = f"{built.img_prefix} has class folders without an image: {first_few(empty)}"
        yield Finding(
            "classes without images", f"{message}. Take them out, or fill them", count=len(empty), fatal=False
        )


# --- Lists ------------------------------------------------------------------------------------------------------------


def _look_at_lines(built: CustomDataset, lines: list[str], outputs: int | None, skip: float, listed: Listed) -> None:
    names, labels = lines, None
    if built.with_label:
        listed.findings += _line_findings(built, lines)
        if listed.findings:
            return
        pairs = [line.strip().rsplit(" ", 1) for line in lines]
        names, labels = [name for name, _ in pairs], [int(label) for _, label in pairs]
        places = [f"line {number}" for number in range(1, len(lines) + 1)]
        listed.findings += _label_findings(built, labels, places, outputs or len(listed.classes))
        listed.labels = _labels_of_folders(names, labels)
        listed.findings += _misnamed_folders(built, listed)
    listed.paths = [join(built.img_prefix, name) for name in names]
    listed.findings += _repeated(built, names, labels)
    listed.findings += _missing(built, names, listed.paths, skip)


def _labels_of_folders(names: Sequence[str], labels: Sequence[int]) -> dict[str, int]:
    """The label of each folder of images, by its name, where folders are the classes: each has one, of its own."""
    found: dict[str, set[int]] = {}
    for name, label in zip(names, labels):
        found.setdefault(os.path.basename(os.path.dirname(name)), set()).add(label)
    one_each = len(set(labels)) == len(found) > 1 and all(len(of) == 1 for of in found.values())
    return {folder: of.pop() for folder, of in found.items()} if one_each else {}


def _misnamed_folders(built: CustomDataset, listed: Listed) -> Iterator[Finding]:
    """A list by which the images of a folder are of another class than the folder is called after."""
    label_of = {name: label for label, name in enumerate(listed.classes)}
    moved = [(name, label) for name, label in listed.labels.items() if label_of.get(name, label) != label]
    if moved:
        name, label = moved[0]
        called = repr(listed.classes[label]) if 0 <= label < len(listed.classes) else "no class"
        message = (
            f"{built.ann_file} has label {label} for the images of the folder {name}, and the classes of the dataset "
            f"call label {label} {called} and {label_of[name]} {name!r}. Correct the list, or the order of the classes"
        )
        yield Finding("classes", message, count=len(moved))


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


def _label_findings(
    built: BaseDataset, labels: Sequence[int], places: Sequence[str], outputs: int
) -> Iterator[Finding]:
    """Labels without an output, and a single one.

    Args:
        built: The dataset.
        labels: N of them.
        places: Where each is (N).
        outputs: How many classes there are; 0 if nothing says it.
    """
    wrong = [index for index, label in enumerate(labels) if label < 0 or (outputs and label >= outputs)]
    if wrong:
        hint = ""
        if min(labels) == 1 and max(labels) == outputs:
            hint = " They are counted from 1: take 1 from each."
        message = (
            f"{built.ann_file} has labels that the model has no output for, such as {labels[wrong[0]]} in "
            f"{places[wrong[0]]}; it has {outputs}, labels 0 to {outputs - 1}.{hint} Correct the list, or num_classes"
        )
        yield Finding("label out of range", message, tuple(places[index] for index in wrong[:5]), len(wrong))
    elif len(labels) > 1 and len(set(labels)) == 1 and outputs > 1:
        yield Finding("one label", f"{built.ann_file} has label {labels[0]} for every image", fatal=False)
    elif labels and outputs > 1 and set(labels) == set(range(1, outputs)):
        message = f"{built.ann_file} has labels 1 to {outputs - 1}, and no 0: are they counted from 1?"
        yield Finding("no label 0", f"{message} Then take 1 from each, and 1 from num_classes", fatal=False)


def _repeated(built: BaseDataset, names: Sequence[str], labels: Sequence[Any] | None) -> Iterator[Finding]:
    """Images that are listed twice, with the same label or another."""
    twice = set(repeated(names))
    of: dict[str, set] = {name: set() for name in twice}
    for name, label in zip(names, map(repr, labels or ())):
        if name in twice:
            of[name].add(label)
    unlike = sorted(name for name, all_labels in of.items() if len(all_labels) > 1)
    if unlike:
        message = f"{built.ann_file} lists images with several labels, of which a model can learn one at most; keep one"
        yield Finding("contradictory labels", message, tuple(unlike), fatal=False)
    if same := twice.difference(unlike):
        yield listed_twice(sorted(same), f"{built.ann_file} ")


def _missing(built: BaseDataset, names: Sequence[str], paths: Sequence[str], skip: float) -> Iterator[Finding]:
    missing = absent(paths)
    if missing:
        name = names[[str(Path(path)) for path in paths].index(missing[0])]
        message = f"{built.ann_file} lists {len(missing)} images (of {len(names)}) that are not in {built.img_prefix}"
        advice = "Put them there, take them off the list, or set data_prefix of the dataset"
        fatal = len(missing) > skip * len(names)
        why = why_missing(name, Path(built.img_prefix), "path")
        yield Finding("images missing", f"{message}. {why}{advice}", tuple(missing), fatal=fatal)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _look_at_json(built: BaseDataset, outputs: int | None, skip: float) -> Listed:
    """A file of ``metainfo`` and ``data_list``, read by mmengine: one label each, or a list of them."""
    named = tuple(built._metainfo.pop("classes", None) or ())  # the file's own are left alone where the config has some
    try:
        samples = built.load_data_list()
    except OSError:
        raise
    except Exception as error:  # whatever mmengine and a class raise of a file that they do not expect
        message = f"{built.ann_file} is not OpenMMLab's JSON of data_list and metainfo: {type(error).__name__}: {error}"
        return Listed([Finding("list of images", message)])
    names = built.metainfo.get("classes") or [one["category_name"] for one in built.metainfo.get("categories") or ()]
    own = () if isinstance(names, str) else tuple(names)
    listed = Listed(classes=named or own)
    pairs = enumerate(zip(named, own))
    label = next((label for label, (name, other) in pairs if name != other and name in own), None)
    if label is not None:
        message = f"label {label} is {own[label]!r} in {built.ann_file}, and the classes of the dataset call it "
        message += f"{named[label]!r}, another one there. Write them in the file's order, or leave them out"
        listed.findings.append(Finding("classes", message))
    if not samples:
        listed.findings.append(Finding("list of images", f"{built.ann_file} has an empty data_list"))
        return listed
    listed.findings += _gt_label_findings(built, samples, outputs or len(listed.classes))
    labels = [sample.get("gt_label") for sample in samples]
    listed.several = any(isinstance(label, list) and len(label) != 1 for label in labels)
    listed.paths = [sample["img_path"] for sample in samples if isinstance(sample.get("img_path"), str)]
    inside = [os.path.relpath(path, built.img_prefix or ".") for path in listed.paths]
    listed.findings += _repeated(built, inside, labels if len(labels) == len(inside) else None)
    listed.findings += _missing(built, inside, listed.paths, skip)
    return listed


def _gt_label_findings(built: BaseDataset, samples: Sequence[dict], outputs: int) -> Iterator[Finding]:
    labels: list[Any] = [sample.get("gt_label") for sample in samples]
    if all(label is None for label in labels) or any(isinstance(label, dict) for label in labels):
        return  # images of a test set, or labels of several tasks
    several = isinstance(labels[0], list)
    wrong = [number for number, label in enumerate(labels) if not _is_label(label, several)]
    if wrong:
        message = (
            f"{built.ann_file} has gt_label={labels[wrong[0]]!r} in data_list[{wrong[0]}]: write the number of the "
            "class, from 0 on, or for each image the list of such numbers"
        )
        yield Finding("list of images", message, _places(wrong), len(wrong))
    elif several and not any(labels):
        yield Finding(
            "list of images", f"{built.ann_file} has no label in any image: gt_label is an empty list in each"
        )
    elif several and _are_one_hot(labels, outputs):
        message = (
            f"{built.ann_file} has lists of {outputs} zeros and ones for gt_label, such as {labels[0]}: they are read "
            "as the numbers of classes, so that all images seem to have classes 0 and 1. Write the numbers, as "
            f"{[label for label, there in enumerate(labels[0]) if there]}"
        )
        yield Finding("list of images", message, count=len(labels))
    else:
        flat = [(number, one) for number, label in enumerate(labels) for one in (label if several else [label])]
        yield from _label_findings(built, [one for _, one in flat], [f"data_list[{n}]" for n, _ in flat], outputs)


def _is_label(label: Any, several: bool) -> bool:
    return isinstance(label, list) and all(type(one) is int for one in label) if several else type(label) is int


def _are_one_hot(labels: Sequence[list[int]], outputs: int) -> bool:
    return outputs > 2 and all(len(label) == outputs and set(label) <= {0, 1} for label in labels)


def _places(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"data_list[{number}]" for number in numbers[:5])
