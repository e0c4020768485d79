"""Classes of configs by their path."""

import pytest

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmdet")


def test_a_file_with_the_name_of_a_function():
    from mmdet.models.losses.smooth_l1_loss import L1Loss
    from mmengine.utils import get_object_from_string

    assert get_object_from_string("mmdet.models.losses.smooth_l1_loss.L1Loss") is L1Loss
    assert get_object_from_string("mmdet.models.losses.smooth_l1_loss.NoLoss") is None
    assert get_object_from_string("no_such_package.Nothing") is None and get_object_from_string("L1Loss") is None
