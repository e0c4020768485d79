"""Tables of relative positions fitted to another window, which SciPy >= 1.14 has no function for."""

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - adds the function

interpolate = pytest.importorskip("scipy.interpolate", reason="scipy is not installed")


def table(side: int) -> torch.Tensor:
    """A table of two heads, neither symmetric."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    return torch.tensor(np.stack([x**3 - y, x * y**2 + 0.5], axis=-1)).reshape(side * side, 2).float()


def expected(side: int) -> torch.Tensor:
    """By another interpolation of SciPy's: places grow by 1 % each, as both toolboxes have them for the same size."""
    away = np.cumsum(1.01 ** np.arange(side // 2))
    places, wanted = np.concatenate([-away[::-1], [0], away]), np.arange(side) - side // 2
    grid = np.stack(np.meshgrid(wanted, wanted, indexing="ij"), axis=-1)
    cubic = interpolate.RegularGridInterpolator((places, places), table(side).view(side, side, 2).numpy(), "cubic")
    return torch.tensor(cubic(grid)).reshape(side * side, 2).float()


def test_mmpretrains_tables_are_fitted() -> None:
    embed = pytest.importorskip("mmpretrain.models.utils.embed", reason="mmpretrain is not installed")
    fitted = embed.resize_relative_position_bias_table(13, 13, table(13), 2)
    torch.testing.assert_close(fitted, expected(13), atol=1e-4, rtol=0)
    smaller, whole = embed.resize_relative_position_bias_table(13, 7, table(13), 2).view(7, 7, 2), table(13)
    torch.testing.assert_close(smaller[3, 3], whole.view(13, 13, 2)[6, 6], atol=1e-5, rtol=0)  # the middle stays


def test_mmsegs_tables_are_fitted() -> None:
    beit = pytest.importorskip("mmseg.models.backbones.beit", reason="mmseg is not installed")
    fitted = beit.BEiT._geometric_sequence_interpolation(None, 13, 13, table(13), 2)
    torch.testing.assert_close(fitted, expected(13), atol=1e-4, rtol=0)


def test_scipy_stays_as_it_is() -> None:
    with pytest.raises((NotImplementedError, TypeError, AttributeError)):
        interpolate.interp2d()
