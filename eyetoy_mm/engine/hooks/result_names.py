"""Which image of a test set a result is of, and the name that it gets, in any number of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.structures import BaseDataElement

from eyetoy_mm.paths import is_address, take_name


class ResultNames:
    """Positions in a test set of what a process predicts, and names for it that no other image has.

    Processes write into one folder and do not ask each other: each goes through the paths of the whole data set, in its
    order, and gives ``a.png`` after ``a.jpg`` the same name as the others do, and as one process would.

    Args:
        dataset: The test set.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._seen = 0  # samples in this process
        self._passed = 0  # images of the data set that have a name
        self._used: set[Path] = set()

    def once(self, samples: Sequence[BaseDataElement]) -> Iterator[tuple[int, BaseDataElement]]:
        """The next samples that no other process has, with their positions.

        Samplers deal images out one by one, and some twice, for all processes to have as many.
        """
        for sample in samples:
            position = self._seen * dist.get_world_size() + dist.get_rank()
            self._seen += 1
            if position < len(self._dataset):
                yield position, sample

    def name(self, position: int, path: str | None) -> str:
        """Path of an image below the folder of its data set; its number where it has none."""
        return name_below(self._dataset, path) if path else f"{position:06}"

    def target(self, position: int, path: str | None) -> Path:
        """Name of an image's results, a path without suffix.

        Args:
            position: Where it is in the data set, after all that were asked for before.
            path: Of its file, None for one that has none.
        """
        plain = Path(self.name(position, path)).with_suffix("")
        known, target = None, plain
        while self._passed <= position:
            known = self._path_at(self._passed)
            target = take_name(Path(self.name(self._passed, known)).with_suffix(""), self._used)
            self._passed += 1
        if known == path:
            return target
        # Of a sampler with an order of its own, or a data set that does not tell.
        return take_name(
            plain if dist.get_world_size() == 1 else plain.with_name(f"{plain.name}_{position:06}"), self._used
        )

    def _path_at(self, position: int) -> str | None:
        tell = getattr(self._dataset, "get_data_info", None)
        return tell(position).get("img_path") if tell else None


def name_below(dataset: Any, path: str) -> str:
    """Path of an image below the folder of its dataset; where it is not below, its last part."""
    prefixes = getattr(dataset, "data_prefix", None) or {}
    below = os.path.normpath(path)  # a name in an annotation may lead out with ".."
    for folder in prefixes.values() if isinstance(prefixes, dict) else ():
        if folder and not is_address(path) and Path(below).is_relative_to(os.path.normpath(folder)):
            return str(Path(below).relative_to(os.path.normpath(folder)))
    return Path(path).name
