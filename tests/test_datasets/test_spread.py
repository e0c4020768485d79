"""Of many as many as are wanted, from the first to the last."""

from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.engine.label_counts import MOST_LISTED


def test_large_data_sets_are_looked_at_in_part():
    assert spread(5, 10) == [0, 1, 2, 3, 4] and spread(0, 10) == []
    some = spread(10 * MOST_LISTED, MOST_LISTED)
    assert len(some) == MOST_LISTED and (some[0], some[-1]) == (0, 10 * MOST_LISTED - 1)
