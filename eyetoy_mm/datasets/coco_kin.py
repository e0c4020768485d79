"""Files of COCO's kin, LVIS and Objects365, checked as what mmdet's datasets make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from eyetoy_mm.datasets.coco_files import coco_findings
from eyetoy_mm.datasets.coco_format import lacking_findings, read_json, told_of
from eyetoy_mm.datasets.findings import Finding

_COCO_IMAGES = "http://images.cocodataset.org/"


def lvis_v1_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What is wrong with a file for mmdet's ``LVISV1Dataset``, which takes images by their addresses at COCO.

    It takes every category of the file for a class, whatever the config says. The arguments are those of
    :func:`~eyetoy_mm.datasets.coco_files.coco_findings`.
    """
    found = told_of(path, split, lambda: list(_lacking(path, dataset, read, images=("coco_url",))))
    return found or _lvis_findings(path, split, classes, dataset, _reading(read, images=_of_address))


def lvis_v05_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """As :func:`lvis_v1_findings` for ``LVISV05Dataset``, which takes images by their names."""
    return _lvis_findings(path, split, classes, dataset, _reading(read, images=_of_2017))


def lvis_evaluator_findings(
    path: str | Path, split: str, evaluator: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What ``LVISMetric`` reads of a file when its first evaluation ends, hours later."""
    images, categories = ("neg_category_ids", "not_exhaustive_category_ids"), ("frequency",)

    def findings() -> Iterator[Finding]:
        lacking = list(_lacking(path, evaluator, read, images=images, categories=categories))
        yield from lacking
        frequencies = [] if lacking else [one["frequency"] for one in read(path)["categories"]]
        if unlike := [one for one in frequencies if one not in ("r", "c", "f")]:
            told = "'r', 'c' or 'f': rare, common or frequent"
            yield Finding(
                "COCO format", f"has categories whose frequency is {unlike[0]!r}, not {told}", (), len(unlike)
            )

    return told_of(path, f"{split}, evaluator", lambda: list(findings()))


def _lacking(path: str | Path, settings: dict, read: Callable[..., Any], **fields: Sequence[str]) -> Iterator[Finding]:
    """Fields beside COCO's that entries of lists have to have; what is wrong with COCO's is told by others."""
    content = read(path, settings.get("backend_args"))
    for key, names in fields.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if isinstance(entries, list):
            yield from lacking_findings(key, entries, names)


def _lvis_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any]
) -> list[Finding]:
    try:
        names = [str(category["name"]) for category in read(path, dataset.get("backend_args"))["categories"]]
    except (ValueError, TypeError, KeyError):  # no such file: told by what looks at the format
        names = list(classes)
    found = list(_other_labels(names, classes))
    found = [replace(finding, message=f"{path} ({split}) {finding.message}") for finding in found]
    return found + coco_findings(path, split, names, dataset, read)


def _other_labels(names: list[str], classes: Sequence[str]) -> Iterator[Finding]:
    unlike = [label for label, (name, given) in enumerate(zip(names, classes)) if name != given]
    advice = "mmdet numbers them as the file lists them: set metainfo=dict(classes=(...)) of the dataset so"
    if len(names) != len(classes):
        yield Finding("classes", f"has {len(names)} categories, and the config {len(classes)} classes; {advice}")
    elif unlike:
        first = unlike[0]
        message = f"lists category {first} as {names[first]!r}, and the config as {classes[first]!r}; {advice}"
        yield Finding("classes", message, count=len(unlike), fatal=sorted(names) == sorted(classes))


def objects365_v1_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """As :func:`lvis_v1_findings` for ``Objects365V1Dataset``, which sorts the categories by their ids."""

    def by_id(categories: Any) -> Any:
        try:
            return sorted(categories, key=lambda category: category["id"])
        except (TypeError, KeyError):  # no list, or of no ids: told by what looks at the format
            return categories

    return coco_findings(path, split, classes, dataset, _reading(read, categories=by_id))


def objects365_v2_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """As :func:`lvis_v1_findings` for ``Objects365V2Dataset``, which keeps the last folder of a file's name."""
    return coco_findings(path, split, classes, dataset, _reading(read, images=_last_folder))


def _reading(read: Callable[..., Any], **changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """A reader that changes lists of a file."""

    def read_changed(path: str | Path, backend_args: dict | None = None) -> Any:
        content = read(path, backend_args)
        if not isinstance(content, dict):
            return content
        return {key: changes.get(key, lambda entries: entries)(entries) for key, entries in content.items()}

    return read_changed


def _named(images: Any, name: Callable[[dict], str | None]) -> Any:
    """Images with other names, as far as they have what these are made of."""
    if not isinstance(images, list):
        return images
    names = [name(image) if isinstance(image, dict) else None for image in images]
    return [image if name is None else dict(image, file_name=name) for image, name in zip(images, names)]


def _of_address(images: Any) -> Any:
    return _named(images, lambda image: str(image["coco_url"]).replace(_COCO_IMAGES, ""))


def _of_2017(images: Any) -> Any:
    """Names of COCO 2014, where the files are of 2017."""

    def name(image: dict) -> str | None:
        return str(image["file_name"])[-16:] if str(image.get("file_name")).startswith("COCO") else None

    return _named(images, name)


def _last_folder(images: Any) -> Any:
    def name(image: dict) -> str | None:
        given = image.get("file_name")
        return str(PurePosixPath(*PurePosixPath(given).parts[-2:])) if isinstance(given, str) and given else None

    return _named(images, name)
