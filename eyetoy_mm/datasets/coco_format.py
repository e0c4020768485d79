"""COCO files read, and held against their format: which fields, of which type, whose ids."""

from __future__ import annotations

import codecs
import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio

from eyetoy_mm.datasets.coco_boxes import places
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.image_files import foreign_kind
from eyetoy_mm.errors import first_few

FIELDS = dict(
    images=("id", "file_name", "width", "height"),
    annotations=("id", "image_id", "category_id", "bbox", "area"),
    categories=("id", "name"),
)
_LARGEST = 1_000_000  # no image has more pixels in a row


def read_json(path: str | Path, backend_args: dict | None = None) -> Any:
    """Read a JSON file, on a disk or at an address.

    Raises:
        ValueError: It is none, or cannot be read; the message follows the file's name.
    """
    try:
        content = fileio.get(path, backend_args)
        if content[:3] == codecs.BOM_UTF8 or content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
        if (encoding := json.detect_encoding(content)) != "utf-8":  # which others do not look for
            raise ValueError(f"it is {encoding.upper()}; save it as UTF-8")
        if content[:1] not in b"{[" and (what := foreign_kind(content)):
            raise ValueError(f"it is {what}")
        return json.loads(content)
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"is not JSON: {error}. Is the file complete? Download or write it again") from error
    except RecursionError as error:
        raise ValueError("is JSON of lists in lists without end; write it again") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    except (ImportError, KeyError) as error:  # no such client installed, or none of this scheme
        raise ValueError(f"cannot be read: mmengine has no file client for it ({error})") from error


def format_findings(content: Any) -> list[Finding]:
    """What is not as mmdet and pycocotools read it. With findings that are fatal, the rest cannot be looked at."""
    findings = list(fields_findings(content, FIELDS))
    if findings:
        return findings
    return value_findings(content) + (id_findings(content) or list(_repeated(content, FIELDS)))


def fields_findings(content: Any, fields: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Lists and fields that are missing; lists of test images need no annotations."""
    if isinstance(content, dict):
        content.setdefault("annotations", [])
    for key, names in fields.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            message = f"is not in COCO's format: it has no list {key!r}, next to {first_few(fields, 3)}"
            yield Finding("COCO format", message)
            continue
        yield from lacking_findings(key, entries, names)


def lacking_findings(key: str, entries: list, names: Sequence[str]) -> Iterator[Finding]:
    """Entries of a list that are no objects or have not all fields."""
    needed = frozenset(names)
    lacking: dict[tuple[str, ...], list[int]] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            lacking.setdefault(tuple(names), []).append(index)
        elif not needed <= entry.keys():
            lacking.setdefault(tuple(name for name in names if name not in entry), []).append(index)
    for missing, indices in lacking.items():
        yield Finding(
            "COCO format",
            f"is not in COCO's format: {key}[{indices[0]}] has no {first_few(missing)}; add it",
            tuple(f"{key}[{index}]" for index in indices[:5]),
            len(indices),
        )


def value_findings(content: dict[str, list[dict]]) -> list[Finding]:
    """Values that are neither the text nor the numbers that they should be."""
    return [*_text_findings(content), *_number_findings(content)]


def _text_findings(content: dict[str, list[dict]]) -> Iterator[Finding]:
    for key, name in (("images", "file_name"), ("categories", "name")):
        wrong = [entry for entry in content[key] if type(entry[name]) is not str]
        if wrong:
            yield Finding(
                "COCO format",
                f"has {key} whose {name} is not text but {shown(wrong[0][name])}; write it in quotes",
                places(key, (shown(entry["id"]) for entry in wrong)),
                len(wrong),
            )


def _number_findings(content: dict[str, list[dict]]) -> Iterator[Finding]:
    """Values that are not the finite numbers they should be: mmdet computes with them, and fails or yields NaN."""
    images, annotations = content["images"], content["annotations"]
    for name in ("width", "height"):
        sides = numbers([image[name] for image in images])
        wrong = ~((sides > 0) & (sides < _LARGEST))
        yield from _wrong_values("images", images, wrong, name, f"a number of pixels from 1 to {_LARGEST:,}")
    wrong = ~np.isfinite(numbers([annotation["area"] for annotation in annotations]))
    yield from _wrong_values("annotations", annotations, wrong, "area", "a finite number")
    wrong = ~np.isfinite(numbers([annotation["bbox"] for annotation in annotations], 4)).all(1)
    four = "a list of four finite numbers (x, y, width, height)"
    yield from _wrong_values("annotations", annotations, wrong, "bbox", four)
    crowd = [annotation.get("iscrowd", 0) for annotation in annotations]
    wrong = np.array([type(value) not in (int, bool, float) or value not in (0, 1) for value in crowd], bool)
    yield from _wrong_values(
        "annotations", annotations, wrong, "iscrowd", "0 or 1 (anything else leaves the box out of training)"
    )


def _wrong_values(key: str, entries: list[dict], wrong: np.ndarray, name: str, expected: str) -> Iterator[Finding]:
    if not wrong.any():
        return
    bad = [entries[i] for i in np.flatnonzero(wrong)]
    yield Finding(
        "COCO format",
        f"has {key} whose {name} is {shown(bad[0][name])}, not {expected}. Correct them, or take them out",
        places(key.removesuffix("s"), (shown(entry["id"]) for entry in bad)),
        len(bad),
    )


def numbers(values: list, length: int | None = None) -> np.ndarray:
    """Values of JSON as an array, NaN where one is not a number, or not a list of so many.

    Args:
        values: N of them.
        length: How long a list each should be; None for plain numbers.

    Returns:
        (N,) or (N, length), float64.
    """
    shape = (len(values),) if length is None else (len(values), length)
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # lists of several lengths
        array = np.empty(0)
    if array.shape == shape and array.dtype.kind in "iuf":
        return array.astype(float)
    result = np.full(shape, np.nan)
    for index, value in enumerate(values):
        parts = [value] if length is None else value
        well = type(parts) is list and all(type(part) in (int, float) and abs(part) < 2**63 for part in parts)
        if well and len(parts) == (length or 1):
            result[index] = value
    return result


def id_findings(content: dict[str, list[dict]]) -> list[Finding]:
    """Ids that are neither numbers nor text, or now this, now that: they are compared by ``==``."""
    kinds: dict[tuple[str, str], str] = {}
    findings = []
    fields = [(key, "id") for key in content if key in FIELDS] + [("annotations", "image_id")]
    fields += [("annotations", "category_id")]
    for key, name in fields:
        values = [entry[name] for entry in content[key] if name in entry]
        types = set(map(type, values))
        odd = [value for value in values if type(value) not in (int, float, str)] if types - {int, float, str} else []
        if odd:
            message = f"has {key} whose {name} is {shown(odd[0])}; ids are whole numbers"
            findings.append(Finding("ids", message, count=len(odd)))
        elif str in types and len(types) > 1:
            text = next(value for value in values if type(value) is str)
            number = next(value for value in values if type(value) is not str)
            findings.append(
                Finding(
                    "ids",
                    f"has {key} whose {name} is now a number, now text ({number!r}, {text!r}): these are never "
                    "equal. Write numbers everywhere",
                )
            )
        elif types:
            kinds[key, name] = f"text ({values[0]!r})" if str in types else f"numbers ({values[0]!r})"
    for name, key in (("image_id", "images"), ("category_id", "categories")):
        used, listed = kinds.get(("annotations", name)), kinds.get((key, "id"))
        if used and listed and used.startswith("text") != listed.startswith("text"):
            findings.append(
                Finding(
                    "ids",
                    f"has annotations whose {name} is {used}, but the id of its {key} is {listed}: these are never "
                    "equal, and mmdet would drop every annotation in silence. Write numbers in both",
                    count=len(content["annotations"]),
                )
            )
    return findings


def _repeated(content: dict[str, list[dict]], fields: Sequence[str] | dict) -> Iterator[Finding]:
    for key in fields:
        repeated = [str(i) for i, count in Counter(entry["id"] for entry in content[key]).items() if count > 1]
        if repeated:
            yield Finding(
                "ids", f"has several {key} of the same id ({first_few(repeated)}); give each an id of its own"
            )


def shown(value: Any) -> str:
    """A value of a file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from looking for garbage, most of the work among the millions of objects of a file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def told_of(path: str | Path, split: str, findings: Callable[[], list[Finding]]) -> list[Finding]:
    """Findings that begin with the file they are about; a file that cannot be read is one."""
    try:
        with _without_collection():
            found = findings()
    except ValueError as error:
        found = [Finding("COCO format", str(error))]
    return [Finding(f.kind, f"{path} ({split}) {f.message}", f.where, f.count, f.fatal) for f in found]
