"""Batch norms with an eps of 0."""

import subprocess
import sys

import pytest
import torch

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmcv")


def test_a_frozen_norm_without_eps_is_the_division_by_the_deviation():
    from mmcv.cnn import build_norm_layer

    name, norm = build_norm_layer(dict(type="BN", requires_grad=False, eps=0), 3)
    norm.running_mean.copy_(torch.tensor([1.0, 2, 3]))
    norm.running_var.copy_(torch.tensor([1e-12, 1, 4]))
    x = torch.randn(2, 3, 4, 5)
    expected = (x - norm.running_mean[:, None, None]) / norm.running_var.sqrt()[:, None, None]
    assert name == "bn"
    torch.testing.assert_close(norm.eval()(x), expected)
    assert (
        build_norm_layer(dict(type="BN", eps=1e-3), 3)[1].eps == 1e-3
        and build_norm_layer(dict(type="BN"), 3)[1].eps == 1e-5
    )


def test_whatever_is_imported_first():
    """Others have the function by name, as mmcv.cnn and mmcv's ConvModule."""
    code = """if True:
        import mmcv.cnn
        import eyetoy_mm
        from eyetoy_mm.compat import norm_without_eps
        from mmcv.cnn.bricks import conv_module, norm
        for _ in range(2):
            assert mmcv.cnn.build_norm_layer is conv_module.build_norm_layer is norm.build_norm_layer
            assert mmcv.cnn.build_norm_layer(dict(type="BN", eps=0), 3)[1].eps > 0
            built = norm.build_norm_layer
            norm_without_eps.apply()
            assert norm.build_norm_layer is built
    """
    subprocess.run([sys.executable, "-c", code], check=True)
