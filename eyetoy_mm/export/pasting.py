"""What a user of an exported file does with its masks. The function stands alone: it is printed for that user."""

import numpy


def paste(mask: numpy.ndarray, box: numpy.ndarray, height: int, width: int) -> numpy.ndarray:
    """Spread a mask ``(rows, columns)`` on its box in an image: ``(height, width)``, 0 outside of the box."""

    def weights(start: float, end: float, length: int, cells: int) -> numpy.ndarray:
        at = (numpy.arange(length) + 0.5 - start) / (end - start) * cells - 0.5
        return numpy.maximum(0, 1 - abs(at[:, None] - numpy.arange(cells)))

    left, top, right, bottom = box
    return weights(top, bottom, height, mask.shape[0]) @ mask @ weights(left, right, width, mask.shape[1]).T
