"""Training and validation drawn from images that nobody has parted; copies of one image stay together."""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from eyetoy_mm.datasets.layouts.common import Found, Item
from eyetoy_mm.datasets.layouts.mask_files import note_places
from eyetoy_mm.errors import UserError, first_few

# Roboflow's name of a photo, and of every variant that it makes of it.
_ROBOFLOW = re.compile(r"^(?P<photo>.+)\.rf\.[0-9a-zA-Z]{8,}$")


def draw_parts(found: Found, share: float, seed: int) -> None:
    """Draw the validation images, in place, from all but those that are for testing.

    What is byte for byte the same, and what Roboflow made of one photo, is on one side. Of classes of whole images,
    each has the share, and one image at least on either side.

    Args:
        found: What a folder holds.
        share: How much is for validation.
        seed: Of the draw.

    Raises:
        UserError: There are too few images, or the share is none.
    """
    if not 0 < share < 1:
        raise UserError(f"--val-share {share:g} should be a fraction between 0 and 1, as 0.1")
    items = [item for item in found.items if item.split != "test"]
    groups = _groups(found.folder, items)
    strata: dict[str, list[list[Item]]] = defaultdict(list)
    for group in groups:
        strata[group[0].label].append(group)
    short = [f"{label or found.folder} ({len(those)})" for label, those in strata.items() if len(those) < 2]
    if short:
        raise UserError(f"two different images at least are needed to draw from, of each class: {first_few(short)}")
    for label, those in strata.items():
        drawn = random.Random(f"{seed} {label}").sample(those, len(those))
        wanted = min(max(1, round(share * sum(map(len, those)))), sum(map(len, those)) - 1)
        count = 0
        for index, group in enumerate(drawn):
            to_val = count < wanted and (index == 0 or index < len(drawn) - 1)
            count += len(group) * to_val
            for item in group:
                item.split = "val" if to_val else "train"
    copies = sum(len(group) - 1 for group in groups)
    together = f"; {copies} copies are on the side of their original" if copies else ""
    found.decided.append(
        f"{len(found.of('val'))} of {len(items)} images are drawn for validation (--val-share {share:g} --seed {seed})"
        f"{together}"
    )
    found.prefixes, found.files = {}, {}
    if found.format == "masks":
        note_places(found)


def _groups(folder: Path, items: list[Item]) -> list[list[Item]]:
    """Images that belong together, in the order of the first of each."""
    leader = list(range(len(items)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for same in (*_same_bytes(folder, items), *_same_photo(items)):
        for other in same[1:]:
            leader[find(other)] = find(same[0])
    groups: dict[int, list[Item]] = {}
    for index, item in enumerate(items):
        groups.setdefault(find(index), []).append(item)
    return list(groups.values())


def _same_bytes(folder: Path, items: list[Item]) -> Iterator[list[int]]:
    """Files of the same content; only those of the same length are read."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        path = folder / item.image
        by_length[path.stat().st_size if path.is_file() else -1 - index].append(index)
    for same in by_length.values():
        by_content: dict[str, list[int]] = defaultdict(list)
        for index in same if len(same) > 1 else ():
            by_content[hashlib.sha256((folder / items[index].image).read_bytes()).hexdigest()].append(index)
        yield from (those for those in by_content.values() if len(those) > 1)


def _same_photo(items: list[Item]) -> Iterator[list[int]]:
    by_photo: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        if name := _ROBOFLOW.match(PurePosixPath(item.image).stem):
            by_photo[name["photo"]].append(index)
    yield from (same for same in by_photo.values() if len(same) > 1)
