"""The ops of mmcv without mmcv's compiled part."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import eyetoy_mm  # noqa: F401
from eyetoy_mm.compat import mmcv_ops

torchvision = pytest.importorskip("torchvision")
pytest.importorskip("mmcv")
if not mmcv_ops.needed():
    pytest.skip("mmcv has its own compiled ops", allow_module_level=True)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


def random_boxes(count: int, seed: int = 0, whole: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 50
    boxes = torch.cat([start, start + 1 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    return (boxes.round() if whole else boxes), torch.rand(count, generator=generator)


def iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    one, zero = np.float32(offset), np.float32(0)
    width = max(zero, min(a[2], b[2]) - max(a[0], b[0]) + one)
    height = max(zero, min(a[3], b[3]) - max(a[1], b[1]) + one)
    area_a, area_b = ((x[2] - x[0] + one) * (x[3] - x[1] + one) for x in (a, b))
    return width * height / (area_a + area_b - width * height)


def brute_force_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    box = boxes.numpy()
    keep: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(iou(box[k], box[i], offset) <= np.float32(threshold) for k in keep):
            keep.append(i)
    return keep


# --- The module -----------------------------------------------------------------------------------------------------


def test_the_stand_in_is_a_real_module() -> None:
    import mmcv._ext
    import mmcv.ops

    assert sys.modules["mmcv._ext"] is mmcv._ext is sys.modules["mmcv.ops.nms"].ext_module
    assert mmcv._ext.__spec__.name == "mmcv._ext"
    assert Path(mmcv._ext.__file__).name == "_mmcv_ext.py"
    assert inspect.unwrap(mmcv._ext) is mmcv._ext  # type: ignore[arg-type]
    assert not hasattr(mmcv._ext, "__path__") and not hasattr(mmcv._ext, "__wrapped__")
    assert "eyetoy_mm.compat" in mmcv.ops.get_compiler_version()
    assert "eyetoy_mm.compat" in mmcv.ops.get_compiling_cuda_version()


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_present_ext_is_left_alone(run_python: Callable[..., str], tmp_path: Path, kind: str) -> None:
    # An mmcv on disk that comes before the installed one, with a compiled part.
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    ext = tmp_path / "mmcv" / "_ext.py" if kind == "module" else tmp_path / "mmcv" / "_ext" / "__init__.py"
    ext.parent.mkdir(exist_ok=True)
    ext.write_text("def nms():\n    return 'compiled'\n")
    code = (
        "import eyetoy_mm\n"
        "from eyetoy_mm.compat import mmcv_ops\n"
        "import mmcv._ext\n"
        "print(mmcv_ops.needed(), mmcv._ext.nms(), hasattr(mmcv._ext, 'softnms'))"
    )
    assert run_python(code, tmp_path).split() == ["False", "compiled", "False"]


def test_a_broken_ext_shows_its_own_error(run_python: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    (tmp_path / "mmcv" / "_ext.py").write_text("raise ImportError('undefined symbol: of another torch')\n")
    code = "import eyetoy_mm\ntry:\n    import mmcv._ext\nexcept ImportError as error:\n    print(error)"
    assert "undefined symbol" in run_python(code, tmp_path)


def test_other_ops_import_and_raise_when_called() -> None:
    from mmcv.ops import box_iou_rotated, contour_expand

    with pytest.raises(NotImplementedError, match="'contour_expand'.*pip install --no-build-isolation"):
        contour_expand(np.ones((1, 2, 2), np.uint8), np.ones((2, 2), np.int32), 0, 1)
    with pytest.raises(NotImplementedError, match="'box_iou_rotated'"):
        box_iou_rotated(torch.rand(1, 5), torch.rand(1, 5))


@pytest.mark.parametrize("name, command", [("mmcv_lite", "'mmcv>=2.0.0,<2.2.0'"), ("onedl_mmcv", " onedl-mmcv")])
def test_the_command_is_for_the_mmcv_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    info = tmp_path / f"{name}-2.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 2.1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert mmcv_ops.how_to_get_them().endswith(command)


def test_without_torchvision_the_op_says_so_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcv.ops import nms, roi_align

    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="'nms'.*pip install torchvision"):
        nms(*random_boxes(3), 0.5)
    with pytest.raises(ImportError, match="'roi_align_forward'.*pip install torchvision"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)


# --- nms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_torchvisions(device: str, threshold: float) -> None:
    from mmcv.ops import nms

    boxes, scores = (x.to(device) for x in random_boxes(300))
    dets, keep = nms(boxes, scores, threshold)
    assert torch.equal(keep, torchvision.ops.nms(boxes, scores, threshold))
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[keep])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.7])
def test_nms_is_the_loop(threshold: float, offset: int, whole: bool) -> None:
    from mmcv.ops import nms

    for seed in range(3):
        boxes, scores = random_boxes(80, seed, whole)
        assert nms(boxes, scores, threshold, offset)[1].tolist() == brute_force_nms(boxes, scores, threshold, offset)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.7])
@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_a_box_whose_overlap_is_the_threshold(threshold: float, offset: int) -> None:
    from mmcv.ops import nms

    # The overlap is 3/10, 6/10 or 7/10 exactly; in float32, 0.3 and 0.6 are larger than the double of that name.
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 10 * threshold, 1]]).round()
    boxes[:, 2:] -= offset
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, threshold, offset)[1].tolist() == [0, 1]
    assert brute_force_nms(boxes, scores, threshold, offset) == [0, 1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_of_other_dtypes(device: str, dtype: torch.dtype) -> None:
    from mmcv.ops import nms

    boxes, scores = (x.to(device, dtype) for x in random_boxes(40))
    expected = torchvision.ops.nms(boxes.double(), scores.double(), 0.5)
    assert torch.equal(nms(boxes, scores, 0.5)[1], expected)
    assert torch.equal(nms(boxes.float(), scores, 0.5)[1], expected)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_no_boxes(offset: int) -> None:
    from mmcv.ops import nms, soft_nms

    for op in (nms, soft_nms):
        dets, keep = op(torch.zeros(0, 4), torch.zeros(0), 0.5, offset=offset)
        assert dets.shape == (0, 5) and keep.shape == (0,) and keep.dtype == torch.long


def test_nms_options_of_mmcv() -> None:
    from mmcv.ops import nms

    boxes, scores = random_boxes(60)
    _, keep = nms(boxes.numpy(), scores.numpy(), iou_threshold=0.5, score_threshold=0.3, max_num=5)
    expected = [i for i in brute_force_nms(boxes, scores, 0.5, 0) if scores[i] > 0.3][:5]
    assert keep.tolist() == expected


@pytest.mark.parametrize("split_thr", [10000, 10])
def test_batched_nms_is_torchvisions(split_thr: int) -> None:
    from mmcv.ops import batched_nms

    boxes, scores = random_boxes(100)
    labels = torch.arange(100) % 3
    dets, keep = batched_nms(boxes, scores, labels, dict(type="nms", iou_threshold=0.5, split_thr=split_thr))
    assert torch.equal(keep, torchvision.ops.batched_nms(boxes, scores, labels, 0.5))
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[keep])


# --- soft-nms -------------------------------------------------------------------------------------------------------


def brute_force_soft_nms(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: int, offset: int
) -> tuple[np.ndarray, list[int]]:
    """mmcv/ops/csrc/pytorch/cpu/nms.cpp, line by line."""
    rows = [(box, score, i) for i, (box, score) in enumerate(zip(boxes.numpy(), scores.numpy(), strict=True))]
    dets: list[np.ndarray] = []
    count, i = len(rows), 0
    while i < count:
        best = i
        for pos in range(i + 1, count):
            if rows[best][1] < rows[pos][1]:
                best = pos
        rows[i], rows[best] = rows[best], rows[i]
        dets.append(np.append(rows[i][0], rows[i][1]))
        pos = i + 1
        while pos < count:
            overlap = iou(rows[i][0], rows[pos][0], offset)
            weight = np.float32(1)
            if method == 0 and overlap >= np.float32(threshold):
                weight = np.float32(0)
            elif method == 1 and overlap >= np.float32(threshold):
                weight = np.float32(1) - overlap
            elif method == 2:
                weight = np.exp(-(overlap * overlap) / np.float32(sigma))
            rows[pos] = (rows[pos][0], rows[pos][1] * weight, rows[pos][2])
            if rows[pos][1] < np.float32(min_score):
                rows[pos] = rows[count - 1]
                count -= 1
                pos -= 1
            pos += 1
        i += 1
    return np.array(dets), [row[2] for row in rows[:count]]


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("min_score", [1e-3, 0.3])
def test_soft_nms_is_the_loop(method: str, offset: int, min_score: float) -> None:
    from mmcv.ops import soft_nms

    number = {"naive": 0, "linear": 1, "gaussian": 2}[method]
    for seed in range(4):
        boxes, scores = random_boxes(40, seed)
        if seed == 3:
            scores = (scores * 4).round() / 4  # equal scores: their order is that of mmcv, too
        before = boxes.clone(), scores.clone()
        dets, keep = soft_nms(boxes, scores, 0.4, 0.5, min_score, method, offset)
        expected_dets, expected_keep = brute_force_soft_nms(boxes, scores, 0.4, 0.5, min_score, number, offset)
        assert keep.tolist() == expected_keep
        np.testing.assert_allclose(dets.numpy(), expected_dets, rtol=1e-6)
        assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


@pytest.mark.parametrize(
    ("method", "expected_scores", "expected_inds"),
    [
        ("linear", [0.9, 0.6, 0.29024392, 0.2], [1, 0, 2, 3]),
        ("gaussian", [0.9, 0.59630775, 0.35275510, 0.18650459], [1, 0, 2, 3]),
        ("naive", [0.9, 0.6, 0.2], [1, 0, 3]),
    ],
)
def test_soft_nms_gives_the_published_numbers(
    method: str, expected_scores: list[float], expected_inds: list[int]
) -> None:
    from mmcv.ops import soft_nms

    # From mmcv's own tests (tests/test_ops/test_nms.py).
    boxes = torch.tensor([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]])
    dets, inds = soft_nms(boxes, torch.tensor([0.6, 0.9, 0.7, 0.2]), 0.3, 0.5, 0.01, method)
    assert inds.tolist() == expected_inds
    torch.testing.assert_close(dets, torch.cat([boxes[inds], torch.tensor(expected_scores)[:, None]], dim=1))


# --- roi_align ------------------------------------------------------------------------------------------------------

ROIS = [[0, 1.3, 2.1, 9.7, 7.4], [1, 0, 0, 12, 9], [1, -3.0, -2, 20, 15], [0, 4, 4, 4, 4], [0, 5, 6, 5.2, 6.3]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_roi_align_is_torchvisions(device: str, aligned: bool, sampling_ratio: int, scale: float) -> None:
    from mmcv.ops import roi_align

    torch.manual_seed(0)
    ours = torch.randn(2, 3, 9, 12, device=device, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    rois = torch.tensor(ROIS, device=device)
    out = roi_align(ours, rois, (3, 4), scale, sampling_ratio, "avg", aligned)
    expected = torchvision.ops.roi_align(theirs, rois, (3, 4), scale, sampling_ratio, aligned)
    assert torch.equal(out, expected)

    grad = torch.randn(3, 4, 5, 3, device=device).permute(2, 3, 0, 1)  # not contiguous
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_gradient_is_the_derivative(aligned: bool) -> None:
    from mmcv.ops import roi_align

    x = torch.randn(2, 2, 9, 12, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (2, 3), 0.7, 0, "avg", aligned), x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision(device: str, dtype: torch.dtype) -> None:
    from mmcv.ops import roi_align

    x = torch.randn(2, 3, 9, 12, device=device).to(dtype).requires_grad_()
    rois = torch.tensor(ROIS, device=device).to(dtype)
    out = roi_align(x, rois, 2)
    expected = torchvision.ops.roi_align(x.detach().float(), rois.float(), 2, aligned=True)
    torch.testing.assert_close(out, expected.to(dtype))
    out.sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype and x.grad.isfinite().all()


def test_roi_align_of_no_boxes() -> None:
    from mmcv.ops import roi_align

    x = torch.randn(2, 3, 9, 12, requires_grad=True)
    out = roi_align(x, torch.zeros(0, 5), 7)
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_mask_targets_of_mmdet() -> None:
    structures = pytest.importorskip("mmdet.structures.mask")
    masks = np.zeros((2, 20, 24), dtype=np.uint8)
    masks[0, 4:12, 6:18] = 1
    masks[1, ::2] = 1
    boxes = torch.tensor([[6.0, 4, 18, 12], [0, 0, 24, 20], [3, 2, 21, 17]])
    inds = torch.tensor([0, 0, 1])
    out = structures.BitmapMasks(masks, 20, 24).crop_and_resize(boxes, (8, 12), inds)
    assert out.masks[0].all()  # the box of the mask is all mask
    rois = torch.cat([torch.arange(3.0)[:, None], boxes], dim=1)
    maps = torch.from_numpy(masks)[inds][:, None].float()
    expected = torchvision.ops.roi_align(maps, rois, (8, 12), aligned=True)[:, 0] >= 0.5
    np.testing.assert_array_equal(out.masks, expected.numpy())


# --- Losses and attention -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("logits", "labels", "loss", "grad"),
    [
        (
            [[1.0, 0], [0, 1.0]],
            [0, 1],
            0.13562961,
            [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]],
        ),
        (
            [[1.0, 0, -1.0], [0, 1.0, 2.0]],
            [2, 1],
            1.10251057,
            [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]],
        ),
    ],
)
def test_focal_loss_gives_the_published_numbers(
    device: str, logits: list, labels: list[int], loss: float, grad: list
) -> None:
    from mmcv.ops import sigmoid_focal_loss

    # From mmcv's own tests (tests/test_ops/test_focal_loss.py).
    x = torch.tensor(logits, device=device, requires_grad=True)
    out = sigmoid_focal_loss(x, torch.tensor(labels, device=device), 2.0, 0.25, None, "mean")
    out.backward()
    assert out.item() == pytest.approx(loss, rel=1e-4)
    torch.testing.assert_close(x.grad, torch.tensor(grad, device=device), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_loss_is_torchvisions(dtype: torch.dtype) -> None:
    from mmcv.ops import sigmoid_focal_loss

    torch.manual_seed(0)
    x = (torch.randn(7, 4, dtype=dtype) * 5).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 1])  # 4 is background
    one_hot = torch.nn.functional.one_hot(labels, 5)[:, :4].to(dtype)
    expected = torchvision.ops.sigmoid_focal_loss(x, one_hot, alpha=0.3, gamma=1.7, reduction="none")
    out = sigmoid_focal_loss(x, labels, 1.7, 0.3, None, "none")
    torch.testing.assert_close(out, expected)
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)

    weight = torch.tensor([1.0, 2, 3, 4], dtype=dtype)
    weighted = sigmoid_focal_loss(x, labels, 1.7, 0.3, weight, "none")
    torch.testing.assert_close(weighted, expected * torch.cat([weight, torch.ones(1)])[labels][:, None].to(dtype))
    (weighted_grad,) = torch.autograd.grad(weighted.sum(), x)
    assert torch.allclose(weighted_grad[0], expected_grad[0], rtol=1e-4)
    assert torch.allclose(weighted_grad[2], 3 * expected_grad[2], rtol=1e-4)


def test_focal_loss_far_out_and_empty() -> None:
    from mmcv.ops import sigmoid_focal_loss

    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for reduction in ("none", "sum"):
        out = sigmoid_focal_loss(x, torch.tensor([0, 0]), 2.0, 0.25, None, reduction)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert out.isfinite().all() and grad.isfinite().all()
    empty = torch.zeros(0, 3, requires_grad=True)
    assert sigmoid_focal_loss(empty, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, "none").shape == (0, 3)
    half = torch.randn(5, 3).half().requires_grad_()
    sigmoid_focal_loss(half, torch.zeros(5, dtype=torch.long), 2.0, 0.25, None, "sum").backward()
    assert half.grad is not None and half.grad.dtype == torch.half and half.grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_deformable_attention_and_its_gradients(device: str) -> None:
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    torch.manual_seed(0)
    options: dict[str, Any] = dict(dtype=torch.float64, device=device, requires_grad=True)
    shapes = torch.tensor([[3, 4], [2, 2]], device=device)
    start = torch.tensor([0, 12], device=device)
    value = torch.randn(2, 16, 2, 3, **options)
    locations = torch.rand(2, 5, 2, 2, 3, 2, **options)
    weights = torch.rand(2, 5, 2, 2, 3, **options)

    def ours(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)

    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(ours(value, locations, weights), expected)
    assert torch.autograd.gradcheck(ours, (value, locations, weights))
    half = [x.detach().half().requires_grad_() for x in (value, locations, weights)]
    out = ours(*half)
    out.sum().backward()
    assert out.dtype == torch.half and all(x.grad is not None and x.grad.dtype == torch.half for x in half)


# --- Autocast -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roi_align", "roi_align max", "roi_pool", "prroi_pool", "deform_roi_pool", "carafe"])
def test_operators_are_the_same_under_autocast(name: str) -> None:
    """As compiled ones are: autocast would change the dtype of products within them."""
    from mmcv.ops import carafe, deform_roi_pool, prroi_pool, roi_align, roi_pool

    torch.manual_seed(0)
    x, rois = torch.randn(2, 4, 9, 12), torch.tensor(ROIS)
    offset, masks = torch.rand(len(rois), 2, 2, 2), torch.rand(2, 9, 18, 24)
    calls = {
        "roi_align": lambda x: roi_align(x, rois, 2),
        "roi_align max": lambda x: roi_align(x, rois, 2, 1.0, 2, "max"),
        "roi_pool": lambda x: roi_pool(x, rois, 2),
        "prroi_pool": lambda x: prroi_pool(x, rois, (2, 2)),
        "deform_roi_pool": lambda x: deform_roi_pool(x, rois, offset, 2),
        "carafe": lambda x: carafe(x, masks, 3, 1, 2),
    }
    results = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = calls[name](leaf)
            out.square().sum().backward()
        results.append((out, leaf.grad))
    for plain, cast in zip(*results, strict=True):
        assert torch.equal(plain, cast)
