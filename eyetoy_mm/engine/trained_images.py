"""Images that a config trains on and evaluates on, by their paths: figures on these tell what a model remembers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from eyetoy_mm.datasets.findings import Finding


def trained_images_findings(images: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Images of validation and test that are images of training, too; copies under other names are not seen.

    Args:
        images: Paths of the images of each split, as far as they are known.
    """
    trained = {os.path.normpath(path) for path in images.get("train", ())}
    common = {
        split: [path for path in dict.fromkeys(map(os.path.normpath, paths)) if path in trained]
        for split, paths in images.items()
        if split != "train"
    }
    if not any(common.values()):
        return
    shares = ", ".join(f"{len(same)} of {len(set(images[split]))} in {split}" for split, same in common.items() if same)
    first = next(same for same in common.values() if same)
    message = f"images of training are evaluated on, {shares}: figures on them say how well the model remembers. Take "
    message += "them off one of the two, unless this is meant"
    yield Finding("images of training", message, tuple(first[:5]), max(map(len, common.values())), fatal=False)
