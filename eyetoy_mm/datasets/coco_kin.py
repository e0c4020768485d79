"""Files of COCO's kin, LVIS and Objects365, checked as what mmdet's datasets make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from eyetoy_mm.datasets.coco_files import coco_findings
from eyetoy_mm.datasets.coco_format import read_json
from eyetoy_mm.datasets.findings import Finding

_COCO_IMAGES = "http://images.cocodataset.org/"


def lvis_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What is wrong with a file for mmdet's ``LVISV05Dataset`` and ``LVISV1Dataset``.

    They take every category of the file for a class, whatever the config says. The arguments are those of
    :func:`~eyetoy_mm.datasets.coco_files.coco_findings`.
    """
    try:
        names = [str(category["name"]) for category in read(path, dataset.get("backend_args"))["categories"]]
    except (ValueError, TypeError, KeyError):  # no such file: told by what looks at the format
        names = list(classes)
    found = list(_other_labels(names, classes))
    found = [replace(finding, message=f"{path} ({split}) {finding.message}") for finding in found]
    return found + coco_findings(path, split, names, dataset, _reading(read, images=_lvis_image))


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
    """As :func:`lvis_findings` for ``Objects365V1Dataset``, which sorts the categories by their ids."""

    def by_id(categories: Any) -> Any:
        try:
            return sorted(categories, key=lambda category: category["id"])
        except (TypeError, KeyError):  # no list, or of no ids: told by what looks at the format
            return categories

    return coco_findings(path, split, classes, dataset, _reading(read, categories=by_id))


def objects365_v2_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """As :func:`lvis_findings` for ``Objects365V2Dataset``, which keeps the last folder of a file's name."""
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


def _lvis_image(images: Any) -> Any:
    """Version 1 has addresses in place of names; 0.5 has names of COCO 2014, and the files are of 2017."""

    def name(image: dict) -> str | None:
        if "coco_url" in image and "file_name" not in image:
            return str(image["coco_url"]).replace(_COCO_IMAGES, "")
        return str(image["file_name"])[-16:] if str(image.get("file_name")).startswith("COCO") else None

    return _named(images, name)


def _last_folder(images: Any) -> Any:
    def name(image: dict) -> str | None:
        given = image.get("file_name")
        return str(PurePosixPath(*PurePosixPath(given).parts[-2:])) if isinstance(given, str) and given else None

    return _named(images, name)
