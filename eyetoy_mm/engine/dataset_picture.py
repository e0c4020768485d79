"""A picture of the classes and boxes of a dataset."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eyetoy_mm.engine.check_dataset import Report

_MOST = 60  # classes whose names can be read


def picture_dataset(report: Report) -> Figure:
    """Draw how often each class is in each split, and how large the boxes are.

    Args:
        report: Of :func:`~eyetoy_mm.engine.check_dataset.check_dataset`.
    """
    panels = 1 + bool(report.boxes)
    figure = Figure(figsize=(12, 5 * panels), layout="constrained")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    _draw_classes(axes[0], report)
    if report.boxes:
        _draw_boxes(axes[1], report.boxes)
    return figure


def _draw_classes(axes: Axes, report: Report) -> None:
    """Bars of each class, the most frequent of the first split first."""
    first = next(iter(report.counts.values()), {})
    names = sorted({name for counts in report.counts.values() for name in counts}, key=lambda n: -first.get(n, 0))
    left_out = f", {len(names) - _MOST} rarer ones left out" if len(names) > _MOST else ""
    names = names[:_MOST]
    positions, width = np.arange(len(names)), 0.8 / max(1, len(report.counts))
    for index, (split, counts) in enumerate(report.counts.items()):
        axes.bar(positions + index * width, [counts.get(name, 0) for name in names], width, label=split)
    axes.set_xticks(positions + 0.4 - width / 2, names, rotation=90 if len(names) > 8 else 0, fontsize=8)
    axes.set(yscale="log", ylim=(0.5, None), ylabel=f"{report.unit} of each class", title=f"classes{left_out}")
    if report.counts:
        axes.legend()


def _draw_boxes(axes: Axes, boxes: dict[str, np.ndarray]) -> None:
    """A point for each box; lines are COCO's borders of small, medium and large."""
    for split, sizes in boxes.items():
        axes.scatter(sizes[:, 0], sizes[:, 1], s=4, alpha=0.4, label=f"{split} ({len(sizes)})")
    largest = max(sizes.max() for sizes in boxes.values())
    side = np.geomspace(1, max(largest, 2), 100)
    for area in (32**2, 96**2):
        axes.plot(side, area / side, color="grey", linewidth=0.8)
    axes.set(
        xscale="log", yscale="log", xlim=(1, largest * 1.1), ylim=(1, largest * 1.1),
        xlabel="width of boxes in pixels", ylabel="height", title="boxes; lines: areas of 32² and 96²",
    )  # fmt: skip
    axes.legend()
