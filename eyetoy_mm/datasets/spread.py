"""Some of many, taken evenly: what is systematic in a data set shows in them."""

from __future__ import annotations

import numpy as np


def spread(length: int, most: int) -> list[int]:
    """At most so many of the numbers below ``length``, spread evenly, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int)).tolist()
