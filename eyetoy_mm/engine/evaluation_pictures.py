"""Pictures of an evaluation: confusions, precision against recall, a bar for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from eyetoy_mm.errors import UserError

_MOST = 40  # classes whose names can be read


def draw_confusion(confusion: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draw how often each class was taken for which, in per cent of its row.

    Args:
        confusion: Counts ``(K, K)``, truth in rows; ``(K + 1, K + 1)`` where the last is what is none of the classes.
        classes: K names.
        title: What it is of.

    Raises:
        UserError: There are not as many classes.
    """
    names = [*classes, *["(nothing)"] * (len(confusion) - len(classes))]
    if len(names) != len(confusion) or len(confusion) > len(classes) + 1:
        raise UserError(f"{len(classes)} classes do not fit a confusion matrix of {len(confusion)} rows")
    counts = np.asarray(confusion, dtype=float)
    left_out = ""
    if len(names) > _MOST:  # the most frequent ones
        kept = np.sort(np.argsort(-counts.sum(1), kind="stable")[:_MOST])
        counts, names = counts[np.ix_(kept, kept)], [names[index] for index in kept]
        left_out = f" ({_MOST} most frequent classes of {len(confusion)})"
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 3.0 + 0.32 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=100, cmap="Blues")
    figure.colorbar(image, ax=axes, label="% of the class", shrink=0.7)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="predicted", ylabel="truth", title=f"{title}{left_out}".strip())
    if len(names) <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = shares[row, column] > 60
            axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=6,
                      color="white" if dark else "black")  # fmt: skip
    return figure


def draw_precision_recall(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """Draw precision against recall of each class.

    Args:
        curves: Recall and precision of each class.
        title: What it is of.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for index, (name, (recall, precision)) in enumerate(curves.items()):
        label = name if index < 20 else None
        axes.plot(recall, precision, linewidth=1, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=7, loc="lower left", ncols=2)
    return figure


def draw_class_bars(values: Mapping[str, float], name: str, title: str = "") -> Figure:
    """Draw a bar for each class, the lowest first.

    Args:
        values: Of each class, in per cent.
        name: What they are, as ``IoU``.
        title: What it is of.
    """
    ordered = sorted(values.items(), key=lambda pair: pair[1])[: 2 * _MOST]
    figure = Figure(figsize=(7, 1.5 + 0.22 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.barh([label for label, _ in ordered], [value for _, value in ordered])
    axes.set(xlim=(0, 100), xlabel=f"{name} in %", title=title)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    return figure
