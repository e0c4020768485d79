"""CARAFE, masked convolution, PSA masks, synchronised batch norm, and the layers that are not there."""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import pkgutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from eyetoy_mm.compat.mmcv_ops import LAYERS_WITHOUT
from tests import program
from tests.test_compat.test_mmcv_ext import sync_bn_process


@pytest.mark.parametrize(("kernel", "groups", "scale"), [(5, 1, 2), (3, 2, 3), (1, 1, 1)])
def test_carafe_is_the_loops_and_its_gradients_are_the_derivatives(kernel, groups, scale):
    from mmcv.ops import carafe, carafe_naive

    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 4, dtype=torch.double, requires_grad=True)
    shape = (2, groups * kernel**2, 3 * scale, 4 * scale)
    masks = torch.rand(shape, dtype=torch.double, requires_grad=True)
    expected = torch.zeros(2, 4, 3 * scale, 4 * scale, dtype=torch.double)
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in expected.shape)).tolist():
        for tap in range(kernel**2):
            y, xx = i // scale + tap // kernel - kernel // 2, j // scale + tap % kernel - kernel // 2
            if 0 <= y < 3 and 0 <= xx < 4:
                mask = masks[b, c // (4 // groups) * kernel**2 + tap, i, j]
                expected[b, c, i, j] += (x[b, c, y, xx] * mask).item()
    torch.testing.assert_close(carafe(x, masks, kernel, groups, scale), expected)
    torch.testing.assert_close(carafe_naive(x, masks, kernel, groups, scale), expected)
    for operator in (carafe, carafe_naive):
        assert torch.autograd.gradcheck(
            lambda x, masks, operator=operator: operator(x, masks, kernel, groups, scale), (x, masks), fast_mode=True
        )


def test_carafe_layer_trains():
    from mmcv.ops import CARAFEPack

    layer = CARAFEPack(8, 2)
    out = layer(torch.randn(1, 8, 5, 6))
    assert out.shape == (1, 8, 10, 12)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("kernel", [1, 3, (3, 5)])
def test_masked_convolution_is_the_convolution_at_the_masks_pixels(kernel):
    from mmcv.ops import MaskedConv2d

    torch.manual_seed(0)
    padding = tuple(k // 2 for k in (kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    layer = MaskedConv2d(3, 4, kernel, padding=padding)
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.5
    with torch.no_grad():
        expected = F.conv2d(x, layer.weight, layer.bias, padding=padding) * mask
        torch.testing.assert_close(layer(x, mask), expected, rtol=1e-4, atol=1e-5)
        assert not layer(x, torch.zeros(1, 6, 7)).any()
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(layer(x, mask), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mask", [(5, 7), (3, 3), (4, 6)])
@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_psa_mask_is_the_loops_and_its_gradient_is_the_derivative(kind, mask):
    from mmcv.ops import PSAMask

    torch.manual_seed(0)
    height, width = 3, 4
    x = torch.randn(2, math.prod(mask), height, width, dtype=torch.double, requires_grad=True)
    expected = torch.zeros(2, height * width, height, width, dtype=torch.double)
    for b, h, w, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (2, height, width, *mask))).tolist():
        y, xx = i + h - (mask[0] - 1) // 2, j + w - (mask[1] - 1) // 2
        if 0 <= y < height and 0 <= xx < width:
            value = x[b, i * mask[1] + j, h, w].item()
            if kind == "collect":
                expected[b, y * width + xx, h, w] = value
            else:
                expected[b, h * width + w, y, xx] = value
    layer = PSAMask(kind, mask)
    torch.testing.assert_close(layer(x), expected)
    assert torch.autograd.gradcheck(layer, x, fast_mode=True)


@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_psa_mask_has_its_gradient_under_compile(kind):
    from mmcv.ops import PSAMask

    layer, x = PSAMask(kind, (3, 5)), torch.randn(1, 15, 3, 4)
    gradients = []
    for function in (layer, torch.compile(layer, backend="eager")):
        leaf = x.clone().requires_grad_()
        function(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


# --- Synchronised batch norm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["default", "N"])
def test_sync_bn_of_one_process_is_batch_norm(mode):
    from mmcv.ops import SyncBatchNorm

    torch.manual_seed(0)
    ours, theirs = SyncBatchNorm(3, stats_mode=mode), torch.nn.BatchNorm2d(3)
    theirs.load_state_dict(ours.state_dict())
    for training in (True, True, False):
        x = torch.randn(4, 3, 5, 6)
        results = []
        for layer in (ours.train(training), theirs.train(training)):
            leaf = x.clone().requires_grad_()
            layer.zero_grad()
            out = layer(leaf)
            out.square().sum().backward()
            results.append([out, leaf.grad, layer.weight.grad, layer.bias.grad])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.slow
def test_sync_bn_of_two_processes_is_batch_norm_of_both_batches(tmp_path):
    script = str(Path(__file__).with_name("sync_bn_process.py"))
    for process, _, stderr in [program.start(script, tmp_path, rank) for rank in range(2)]:
        process.join(120)
        assert process.exitcode == 0, stderr.read_text()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))

    x, layer = sync_bn_process.inputs().requires_grad_(), sync_bn_process.weighted(torch.nn.BatchNorm2d(3))
    out = layer(x)
    out.square().sum().backward()
    for ours, theirs in ((0, out), (1, x.grad)):
        torch.testing.assert_close(torch.cat([first[ours], second[ours]]), theirs, rtol=1e-4, atol=1e-4)
    for ours, theirs in ((2, layer.running_mean), (3, layer.running_var)):
        torch.testing.assert_close(first[ours], theirs)
        torch.testing.assert_close(second[ours], theirs)


# --- What is not there ----------------------------------------------------------------------------------------------


def loaded_ops(module) -> list[str]:
    """The names that a file of mmcv.ops gives to load_ext."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_ext"):
            return ast.literal_eval(node.args[1])
    return []


def test_every_layer_has_its_operators_or_says_so_when_it_is_built():
    import mmcv._ext
    import mmcv.ops

    for info in pkgutil.iter_modules(mmcv.ops.__path__):
        module = importlib.import_module(f"mmcv.ops.{info.name}")
        layers = {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, torch.nn.Module) and value.__module__ == module.__name__
        }
        if all(name in vars(mmcv._ext) for name in loaded_ops(module)):
            continue
        for name, layer in layers.items():
            if name not in ("FusedBiasLeakyReLU", "GroupAll"):  # these have a form of their own without the operator
                with pytest.raises(NotImplementedError, match=f"mmcv.ops.{name} .*no-build-isolation"):
                    layer()
    for file, names in LAYERS_WITHOUT.items():
        for name in names:
            with pytest.raises(NotImplementedError, match=f"mmcv.ops.{name} .*no-build-isolation"):
                getattr(importlib.import_module(f"mmcv.ops.{file}"), name)()


def test_a_sparse_convolution_of_a_config_builds_and_says_so_when_it_runs():
    from mmcv.cnn import build_conv_layer
    from mmcv.ops import SparseConvTensor

    layer = build_conv_layer(dict(type="SubMConv3d"), 3, 4, 3)
    x = SparseConvTensor(torch.randn(2, 3), torch.zeros(2, 4, dtype=torch.int32), [4, 4, 4], 1)
    with pytest.raises(NotImplementedError, match="get_indice_pairs_3d_forward.*no-build-isolation"):
        layer(x)
