"""Calibration: how often a model is right that says it is right in so many of a hundred cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 15  # of equal width, as Guo et al., "On Calibration of Modern Neural Networks" (2017)


class Calibration:
    """Counts of predictions by their confidence.

    Attributes:
        counts: ``(3, bins)``: predictions, the sum of their confidences, and how many of them are right.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((3, _BINS))

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Count some predictions.

        Args:
            confidence: The probability of what was predicted, for each.
            right: Whether it was right.
        """
        places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        for row, weights in zip(self.counts, (None, confidence, right.astype(float))):
            row += np.bincount(places, weights, minlength=_BINS)

    @property
    def error(self) -> float:
        """The expected calibration error: how far confidence is from accuracy in a bin, in the mean of predictions."""
        number, confidence, right = self.counts
        return float(np.abs(confidence - right).sum() / max(number.sum(), 1))

    def as_json(self) -> dict[str, Any]:
        """The error and what it comes from."""
        number, confidence, right = self.counts
        filled = np.maximum(number, 1)
        bins = [
            dict(upto=(index + 1) / _BINS, count=int(count), confidence=mean, accuracy=part)
            for index, (count, mean, part) in enumerate(zip(number, confidence / filled, right / filled))
            if count
        ]
        return dict(ece=self.error, predictions=int(number.sum()), bins=bins)

    def draw(self, title: str) -> Figure:
        """Draw accuracy against confidence; on the diagonal they are the same."""
        from matplotlib.figure import Figure

        number, confidence, right = self.counts
        filled = number > 0
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.subplots()
        lefts = np.arange(_BINS) / _BINS
        axes.bar(lefts[filled], right[filled] / number[filled], 1 / _BINS, align="edge", edgecolor="white")
        axes.plot(confidence[filled] / number[filled], right[filled] / number[filled], "o", color="black", markersize=3)
        axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=title)
        axes.grid(alpha=0.3)
        return figure
