"""The ``triton`` back end: fused kernels for GPUs of NVIDIA and AMD, from the Triton that comes with PyTorch.

One launch in the forward pass and two in the backward pass, one more with a bias; see ``triton_kernels.py``. They are
compiled for the GPU when they are first needed, by Triton alone, and not again for other sizes, windows or dilations.
Nothing is tuned at run time: :func:`launch_of` has one choice for each dtype and head dim, made from what the compiler
says of it (docs/performance.md). Results do not depend on the order in which programs run.

With ``TRITON_INTERPRET=1`` in the environment when this is imported, Triton's interpreter runs them on a CPU: to be
looked into, some thousand times slower.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops import plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood
from eyetoy_mm.ops.operator import Operator

LARGEST_HEAD_DIM = 256
LARGEST_HALO = {1: 2**15 - 1, 2: 2**15 - 1, 3: 2**9 - 1}  # positions along an axis, which are packed into one int
MOST_ROWS = 32  # of a tile
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LOG2E = math.log2(math.e)

# Both are read when this is imported, as a variable that is read in a call breaks the graphs of torch.compile.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
INSTALLED = importlib.util.find_spec("triton") is not None


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Why the kernels cannot run this case, or None."""
    if not query.is_cuda and not INTERPRETED:
        return f"its kernels are for GPUs of NVIDIA and AMD, the query is on {query.device}"
    if not INSTALLED:
        return "its kernels are compiled with triton, which is not installed"
    if query.dtype not in DTYPES:
        return f"its kernels are for float32, float16 and bfloat16, the query is {query.dtype}"
    dim = query.shape[-1]
    if dim > LARGEST_HEAD_DIM:
        return f"its kernels are for a head_dim of at most {LARGEST_HEAD_DIM}, got {dim}"
    if query.is_cuda and (old := _too_old(_capability(query.device.index or 0), query.dtype, dim)):
        return old
    return _too_large(neighborhood, query.shape[-2] * dim, bias is not None)


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Call the kernels; plain operators while a graph is exported."""
    if plain_form.is_wanted():
        return plain_form.attend(query, key, value, neighborhood, bias, scale)
    dim, value_dim = query.shape[-1], value.shape[-1]
    if value_dim > LARGEST_HEAD_DIM:  # the output is linear in the values
        parts = value.split(LARGEST_HEAD_DIM, -1)
        return torch.cat([attend(query, key, part, neighborhood, bias, scale) for part in parts], -1)
    if dim != value_dim:  # the kernels know one; zeros change neither scores nor values
        query, key, value = (F.pad(x, (0, max(dim, value_dim) - x.shape[-1])) for x in (query, key, value))
        return attend(query, key, value, neighborhood, bias, scale)[..., :value_dim]
    if bias is None and neighborhood.is_global:  # a sequence fills tiles better
        length = math.prod(neighborhood.spatial)
        if length <= LARGEST_HALO[1]:
            q, k, v = (x.flatten(1, -3) for x in (query, key, value))
            return OPERATOR(q, k, v, None, (length,), (1,), scale).view(query.shape)
    return OPERATOR(query, key, value, bias, neighborhood.kernel_size, neighborhood.dilation, scale)


@torch.compiler.assume_constant_result  # a graph is for the GPU that it is compiled on
def _capability(device: int) -> int:
    """Compute capability, 90 for 9.0; of a GPU of AMD, all of which have matrix instructions that Triton uses, 999."""
    if torch.version.hip is not None:
        return 999
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _has_tensor_cores(device: torch.device) -> bool:
    return device.type != "cuda" or _capability(device.index or 0) >= 80


def _too_old(capability: int, dtype: torch.dtype, dim: int) -> str | None:
    if capability >= 80:
        return None
    if capability < 75 or dtype == torch.bfloat16 or dim > 32:
        return (
            f"below compute capability 8.0 triton has no tensor cores, and its kernels are for 7.5, a head_dim of at "
            f"most 32, float16 and float32; this GPU has {capability / 10}, the query head_dim {dim} and {dtype}"
        )
    return None


def _too_large(neighborhood: Neighborhood, elements: int, with_bias: bool) -> str | None:
    """Why the numbers of a case do not fit the 32 bits that the kernels count with, or None."""
    limit = LARGEST_HALO[len(neighborhood.axes)]
    if math.prod(neighborhood.spatial) * elements >= 2**31:
        return f"its kernels are for fewer than 2**31 elements of a sample, got {neighborhood.spatial} by {elements}"
    # keys of a tile's queries, or queries of its keys: of those between two borders, nearly two windows
    halo = [
        torch.sym_min(-(-axis.length // axis.dilation), 2 * axis.kernel_size + MOST_ROWS) for axis in neighborhood.axes
    ]
    if any(extent > limit for extent in halo) or math.prod(halo) * halo[-1] >= 2**32 - 2**20:
        largest = (limit - MOST_ROWS) // 2
        return f"its kernels are for windows of at most {largest} along an axis, got {neighborhood.kernel_size}"
    if with_bias and any(axis.kernel_size > limit // 2 for axis in neighborhood.axes):
        return f"its tables of biases are for windows of at most {limit // 2}, got {neighborhood.kernel_size}"
    return None


# --- What the kernels ask for -----------------------------------------------------------------------------------------


class Launch(NamedTuple):
    """How a kernel is compiled for a case."""

    rows: tuple[int, int, int]  # of a tile, along each axis
    columns: int  # of the halo in one turn of the loop
    warps: int
    stages: int  # of the loop, whose loads run ahead


def launch_of(axes: int, dim: int, itemsize: int, with_bias: bool, tensor_cores: bool = True) -> Launch:
    """The choice for a rank, head dim and size of an element: no spilled registers, and memory of any GPU.

    Small tiles waste least at borders and in halos, and many of them fit a GPU's processors at once.
    """
    tiles = {32: ((1, 1, 32), (1, 4, 8), (2, 4, 4)), 16: ((1, 1, 16), (1, 2, 8), (2, 2, 4))}
    if not tensor_cores:
        return Launch(tiles[32][axes - 1], 32 if itemsize == 2 else 16, 4, 1)
    if itemsize == 4:  # each product is three of TF32: the registers are full sooner
        rows, columns, warps, stages = next(
            choice
            for largest, *choice in ((32, 32, 16, 2, 1), (64, 32, 16, 4, 1), (128, 16, 16, 4, 1), (256, 16, 16, 8, 1))
            if dim <= largest
        )
    else:
        rows, columns, warps, stages = next(
            choice
            for largest, *choice in ((32, 32, 32, 2, 3), (128, 32, 32, 4, 2), (256, 32, 16, 8, 2))
            if dim <= largest
        )
    # what gathers a bias ahead takes twice the instructions
    return Launch(tiles[rows][axes - 1], columns, warps, min(stages, 2) if with_bias else stages)


class _Call(NamedTuple):
    """One case as all kernels take it."""

    query: Tensor  # (B, N, heads, dim), and so are the others, of the same strides
    key: Tensor
    value: Tensor
    bias: Tensor  # (heads, entries) in float32; anything where there is none
    strides: tuple[int, ...]  # of samples, places and heads
    numbers: tuple[int, ...]  # heads, tiles, and the sizes of each axis
    tiles: int
    constants: dict[str, Any]
    launch: Launch

    @property
    def compilation(self) -> dict[str, Any]:
        """Of a kernel with matrix products."""
        columns, warps, stages = self.launch[1:]
        return dict(COLUMNS=columns, num_warps=warps, num_stages=stages)


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> _Call:
    _check(query, key, value, bias, kernel_size, dilation)
    _, *spatial, heads, dim = query.shape
    axes = len(spatial)
    launch = launch_of(axes, dim, query.element_size(), bias is not None, _has_tensor_cores(query.device))
    ones = [1] * (3 - axes)
    # a dilation beyond the axis separates all its positions, as one of its length does
    steps = [min(step, length) for step, length in zip(dilation, spatial, strict=True)]
    counts = [
        math.ceil(math.ceil(length / step) / rows)
        for length, step, rows in zip([*ones, *spatial], [*ones, *steps], launch.rows, strict=True)
    ]
    tiles = math.prod(counts) * math.prod(steps)
    q, k, v = _flat(query, key, value)
    return _Call(
        query=q,
        key=k,
        value=v,
        bias=q if bias is None else bias.float().resolve_neg().contiguous(),
        strides=q.stride()[:3],
        numbers=(heads, tiles, *ones, *spatial, *ones, *kernel_size, *ones, *steps, *counts),
        tiles=tiles,
        constants=dict(
            HEAD_DIM=dim,
            DIM=max(16, 1 << (dim - 1).bit_length()),  # the least that a matrix product takes
            **dict(zip(("TD", "TH", "TW"), launch.rows)),
            AXES=3 if axes == 3 else 2,
        ),
        launch=launch,
    )


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> None:
    """Check what the kernels take for granted; who calls the node itself has not been checked before.

    Raises:
        TypeError: Tensors that are not alike, or without memory behind them.
        ValueError: Sizes that the kernels would not get right.
    """
    axes = query.dim() - 3
    if not 1 <= axes <= 3 or not query.numel():
        raise ValueError(f"the kernels take (B, *spatial, heads, head_dim) with elements, got {tuple(query.shape)}")
    for name, numbers in (("kernel_size", kernel_size), ("dilation", dilation)):
        if len(numbers) != axes or any(number < 1 for number in numbers):
            raise ValueError(f"{name} must be at least 1 on each of {axes} spatial axes, got {list(numbers)}")
    for x in (key, value):
        if x.shape != query.shape or x.dtype != query.dtype or x.device != query.device:
            raise TypeError(
                f"the kernels take query, key and value alike, got {tuple(query.shape)} {query.dtype} on {query.device}"
                f" and {tuple(x.shape)} {x.dtype} on {x.device}"
            )
    table = (query.shape[-2], *(2 * size - 1 for size in kernel_size))
    if bias is not None and (bias.shape != table or bias.device != query.device):
        raise TypeError(f"the kernels take a bias {table} on {query.device}, got {tuple(bias.shape)} on {bias.device}")
    for x in (query, key, value) if bias is None else (query, key, value, bias):
        last = x.storage_offset() + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        storage = x.untyped_storage()  # freed by who shards or offloads
        if storage.nbytes() < (last + 1) * x.element_size() or not storage.data_ptr():
            raise TypeError(
                f"the kernels take tensors with memory behind them, {tuple(x.shape)} has {storage.nbytes()}"
            )
    neighborhood = Neighborhood.of(tuple(query.shape[1:-2]), tuple(kernel_size), tuple(dilation))
    if reason := refusal(query, neighborhood, bias):
        raise ValueError(f"back end 'triton' cannot run this neighborhood attention: {reason}")


def _flat(*tensors: Tensor) -> list[Tensor]:
    """``(B, *spatial, heads, dim)`` -> ``(B, N, heads, dim)`` of the same strides, the last one 1; or copies."""
    flat = [x.resolve_neg().flatten(1, -3) for x in tensors]
    strides = {x.stride() for x in flat}
    extent = max(sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:])) for x in flat)
    if len(strides) > 1 or flat[0].stride(-1) != 1 or extent >= 2**31:
        flat = [x.contiguous() for x in flat]
    if len({x.stride() for x in flat}) > 1:  # where an axis is one position long, a contiguous tensor has any stride
        flat = [x.clone(memory_format=torch.contiguous_format) for x in flat]
    return flat


def _precision(x: Tensor) -> str:
    """How products are taken: of float32 as three of TF32, or one where the program allows that; else as they are."""
    if x.dtype != torch.float32 or not x.is_cuda or torch.version.hip is not None or not _has_tensor_cores(x.device):
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@functools.cache
def kernels() -> ModuleType:
    """The kernels; Triton is imported when they are first needed."""
    return importlib.import_module("eyetoy_mm.ops.triton_kernels")


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


# --- The operators ----------------------------------------------------------------------------------------------------


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    call = _call(query, key, value, bias, kernel_size, dilation)
    batch, *_, heads, _ = query.shape
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    logsumexp = torch.empty(*query.shape[:-1], 1, dtype=torch.float32, device=query.device)
    with _on(query.device):
        kernels().attention_forward[(call.tiles * heads * batch,)](
            *call[:4], output, logsumexp, scale * LOG2E, *call.strides, *call.numbers,
            **call.constants, **call.compilation, BIAS=bias is not None, PRECISION=_precision(query),
        )  # fmt: skip
    return output, logsumexp


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    output: Tensor,
    logsumexp: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = _call(query, key, value, bias, kernel_size, dilation)
    if gradient.shape != query.shape or output.shape != query.shape or logsumexp.shape != (*query.shape[:-1], 1):
        shapes = [tuple(x.shape) for x in (gradient, output, logsumexp)]
        raise TypeError(
            f"gradient and output have the shape of query {tuple(query.shape)}, its sums one each: {shapes}"
        )
    gradient, output = (x.to(query.dtype).resolve_neg().contiguous() for x in (gradient, output))
    logsumexp = logsumexp.float().contiguous()
    batch, *spatial, heads, _ = query.shape
    query_gradient, key_gradient, value_gradient = (
        torch.empty(query.shape, dtype=query.dtype, device=query.device) for _ in range(3)
    )
    row_numbers = torch.empty(batch, heads, math.prod(spatial), 2, dtype=torch.float32, device=query.device)
    compilation = dict(**call.constants, **call.compilation, BIAS=bias is not None, PRECISION=_precision(query))
    scales = scale * LOG2E, scale
    grid = (call.tiles * heads * batch,)
    with _on(query.device):
        kernels().attention_query_gradient[grid](
            *call[:4], output, logsumexp, gradient, query_gradient, row_numbers, *scales, *call.strides, *call.numbers,
            **compilation,
        )  # fmt: skip
        kernels().attention_key_value_gradient[grid](
            *call[:4], gradient, row_numbers, key_gradient, value_gradient, *scales, *call.strides, *call.numbers,
            **compilation,
        )  # fmt: skip
        bias_gradient = query.new_empty(0) if bias is None else _bias_gradient(call, bias, gradient, row_numbers, scale)
    return query_gradient, key_gradient, value_gradient, bias_gradient


ENTRIES_AT_ONCE = 16  # of the table of biases by one program
PROGRAMS = 2048  # about, which is enough for any GPU; each of them sums over some of the tiles


def _bias_gradient(call: _Call, bias: Tensor, gradient: Tensor, row_numbers: Tensor, scale: float) -> Tensor:
    batch, heads = len(gradient), len(bias)
    programs = heads * math.ceil(bias[0].numel() / ENTRIES_AT_ONCE)
    parts = min(call.tiles * batch, max(1, PROGRAMS // programs))
    sums = torch.empty(parts, *bias.shape, dtype=torch.float32, device=bias.device)
    kernels().attention_bias_gradient[(programs * parts,)](
        *call[:4], gradient, row_numbers, sums, scale * LOG2E, *call.strides, batch, parts, *call.numbers,
        **call.constants, OFFSETS=ENTRIES_AT_ONCE, num_warps=call.launch.warps, num_stages=1,
    )  # fmt: skip
    return sums.sum(0).to(bias.dtype)


OPERATOR = Operator("neighborhood_attention_triton", _forward, _backward, keeps=True)
