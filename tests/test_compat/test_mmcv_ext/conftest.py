from __future__ import annotations

import pytest

import eyetoy_mm  # noqa: F401 - before mmcv: supplies what mmcv-lite lacks
from eyetoy_mm.compat import mmcv_ops

pytest.importorskip("torchvision")
pytest.importorskip("mmcv")


@pytest.fixture(autouse=True)
def mmcv_without_its_ops() -> None:
    if not mmcv_ops.needed():
        pytest.skip("mmcv has its own compiled ops")
