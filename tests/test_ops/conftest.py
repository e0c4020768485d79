"""Tests of the operator run on one thread: on maps this small, waiting for a second one costs more."""

import pytest

from eyetoy_mm.ops import dense_form


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture(scope="module", params=["blocked", "small maps dense"])
def forms(request):
    """Both forms of the ``torch`` back end: small maps at once, as is the rule, and small maps cut into tiles too."""
    before = dense_form.SMALL_MAP
    dense_form.SMALL_MAP = 0 if request.param == "blocked" else before
    yield
    dense_form.SMALL_MAP = before
