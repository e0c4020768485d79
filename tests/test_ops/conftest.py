"""Both forms of the ``torch`` back end, on one thread: on maps this small, waiting for a second one costs more."""

import pytest
import torch

from eyetoy_mm.ops import dense_form


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module", params=["blocked", "small maps dense"])
def _form(request):
    """Small maps are computed at once; here they are also cut into tiles, so that every border of those is met."""
    before = dense_form.SMALL_MAP
    dense_form.SMALL_MAP = 0 if request.param == "blocked" else before
    yield
    dense_form.SMALL_MAP = before
