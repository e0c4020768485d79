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
MOST_ROWS = 64  # of a tile
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
    find = _refusal if torch.compiler.is_compiling() else _known_refusal  # lengths are symbols in a graph
    return find(query.device, query.dtype, query.shape[-2], query.shape[-1], neighborhood, bias is not None)


def _refusal(
    device: torch.device, dtype: torch.dtype, heads: int, dim: int, neighborhood: Neighborhood, with_bias: bool
) -> str | None:
    if dtype not in DTYPES:
        return f"its kernels are for float32, float16 and bfloat16, the query is {dtype}"
    if dim > LARGEST_HEAD_DIM:
        return f"its kernels are for a head_dim of at most {LARGEST_HEAD_DIM}, got {dim}"
    if device.type == "cuda" and (old := _too_old(_capability(device.index or 0), dtype, dim)):
        return old
    return _too_large(neighborhood, heads * dim, with_bias)


_known_refusal = functools.lru_cache(maxsize=4096)(_refusal)


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
    largest = (limit - MOST_ROWS) // 2
    if math.prod(neighborhood.spatial) * elements >= 2**31:
        return f"its kernels are for fewer than 2**31 elements of a sample, got {neighborhood.spatial} by {elements}"
    # keys of a tile's queries, or queries of its keys: of those between two borders, nearly two windows
    halo = [
        torch.sym_min(-(-axis.length // axis.dilation), 2 * axis.kernel_size + MOST_ROWS) for axis in neighborhood.axes
    ]
    if any(extent > limit for extent in halo) or math.prod(halo) * halo[-1] >= 2**32 - 2**20:
        return f"its kernels are for windows of at most {largest} along an axis, got {neighborhood.kernel_size}"
    if with_bias and any(axis.kernel_size > largest for axis in neighborhood.axes):
        return f"its tables of biases are for windows of at most {largest}, got {neighborhood.kernel_size}"
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
    tiles = {
        64: ((1, 1, 64), (1, 8, 8), (4, 4, 4)),
        32: ((1, 1, 32), (1, 4, 8), (2, 4, 4)),
        16: ((1, 1, 16), (1, 2, 8), (2, 2, 4)),
    }
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
            for largest, *choice in ((32, 32, 32, 2, 3), (64, 64, 32, 4, 3), (128, 32, 32, 4, 2), (256, 32, 16, 8, 2))
            if dim <= largest
        )
    # what gathers a bias ahead takes twice the instructions
    return Launch(tiles[rows][axes - 1], columns, warps, min(stages, 2) if with_bias else stages)


class _Plan(NamedTuple):
    """What the kernels are told of a case, whatever its tensors."""

    numbers: tuple[int, ...]  # heads, tiles, and the sizes of each axis
    tiles: int
    constants: dict[str, Any]
    compilation: dict[str, Any]  # of a kernel with matrix products
    warps: int


@functools.lru_cache(maxsize=4096)  # a call of small tensors is over before a plan is made
def _plan(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    with_bias: bool,
) -> _Plan:
    """Of a case; who calls the node itself has not been checked before.

    Raises:
        ValueError: Sizes that the kernels would not get right.
    """
    axes = len(shape) - 3
    if not 1 <= axes <= 3 or not math.prod(shape):
        raise ValueError(f"the kernels take (B, *spatial, heads, head_dim) with elements, got {tuple(shape)}")
    for name, numbers in (("kernel_size", kernel_size), ("dilation", dilation)):
        if len(numbers) != axes or any(number < 1 for number in numbers):
            raise ValueError(f"{name} must be at least 1 on each of {axes} spatial axes, got {list(numbers)}")
    _, *spatial, heads, dim = shape
    neighborhood = Neighborhood.of(tuple(spatial), kernel_size, dilation)
    if reason := _refusal(device, dtype, heads, dim, neighborhood, with_bias):
        raise ValueError(f"back end 'triton' cannot run this neighborhood attention: {reason}")
    if not with_bias and neighborhood.is_global and math.prod(spatial) <= LARGEST_HALO[1]:
        # a sequence fills tiles better; decided here, where it is no reason to compile a graph again
        axes, spatial, dilation = 1, [math.prod(spatial)], (1,)
        kernel_size = tuple(spatial)
    launch = launch_of(axes, dim, dtype.itemsize, with_bias, _has_tensor_cores(device))
    ones = [1] * (3 - axes)
    # a dilation beyond the axis separates all its positions, as one of its length does
    steps = [min(step, length) for step, length in zip(dilation, spatial, strict=True)]
    counts = [
        math.ceil(math.ceil(length / step) / rows)
        for length, step, rows in zip([*ones, *spatial], [*ones, *steps], launch.rows, strict=True)
    ]
    tiles = math.prod(counts) * math.prod(steps)
    constants = dict(
        HEAD_DIM=dim,
        DIM=max(16, 1 << (dim - 1).bit_length()),  # the least that a matrix product takes
        **dict(zip(("TD", "TH", "TW"), launch.rows)),
        AXES=3 if axes == 3 else 2,
    )
    products = dict(COLUMNS=launch.columns, num_warps=launch.warps, num_stages=launch.stages)
    return _Plan(
        numbers=(heads, tiles, *ones, *spatial, *ones, *kernel_size, *ones, *steps, *counts),
        tiles=tiles,
        constants=constants,
        compilation=dict(**constants, **products, BIAS=with_bias),
        warps=launch.warps,
    )


class _Call(NamedTuple):
    """One case as all kernels take it."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor  # (heads, entries) in float32; anything where there is none
    strides: tuple[int, int, int]  # of samples, places and heads of all three
    plan: _Plan


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> _Call:
    """Check the tensors, and lay them out alike.

    Raises:
        TypeError: Tensors that are not alike, or without memory behind them.
        ValueError: Sizes that the kernels would not get right.
    """
    shape, dtype, device = query.shape, query.dtype, query.device
    plan = _plan(shape, dtype, device, tuple(kernel_size), tuple(dilation), bias is not None)
    for x in (key, value):
        if x.shape != shape or x.dtype != dtype or x.device != device:
            raise TypeError(
                f"the kernels take query, key and value alike, got {tuple(shape)} {dtype} on {device}"
                f" and {tuple(x.shape)} {x.dtype} on {x.device}"
            )
    for x in (query, key, value):
        _refuse_freed(x)
    table = query
    if bias is not None:
        expected = (shape[-2], *(2 * size - 1 for size in kernel_size))
        if bias.shape != expected or bias.device != device:
            raise TypeError(f"the kernels take a bias {expected} on {device}, got {tuple(bias.shape)} on {bias.device}")
        _refuse_freed(bias)
        table = _dense(bias, torch.float32)
    strides = _strides(shape, query.stride())
    alike = strides is not None and all(strides == _strides(shape, x.stride()) for x in (key, value))
    if strides is None or not alike or any(x.is_neg() for x in (query, key, value)):
        query, key, value = (_dense(x, dtype) for x in (query, key, value))
        places, row = math.prod(shape[1:-2]), math.prod(shape[-2:])
        strides = (places * row, row, shape[-1])
    return _Call(query, key, value, table, strides, plan)


def _refuse_freed(x: Tensor) -> None:
    """Refuse what has no memory: of a wrapper, or freed by who shards or offloads."""
    storage = x.untyped_storage()
    if storage.nbytes() < (x.storage_offset() + _reach(x.shape, x.stride())) * x.element_size() or not x.data_ptr():
        raise TypeError(f"the kernels take tensors with memory behind them, {tuple(x.shape)} has {storage.nbytes()}")


@functools.lru_cache(maxsize=4096)
def _reach(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first one to the last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


@functools.lru_cache(maxsize=4096)
def _strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int, int] | None:
    """Strides of samples, places of the flattened map, and heads; None where these are not enough, or too large."""
    place = inner = None
    for size, stride in zip(shape[-3:0:-1], strides[-3:0:-1], strict=True):
        if size == 1:
            continue
        if inner is None:
            place = stride
        elif stride != inner:
            return None
        inner = stride * size
    if (shape[-1] > 1 and strides[-1] != 1) or _reach(shape[1:], strides[1:]) > 2**31:
        return None
    # what an axis of one has for a stride is chance, and no reason to compile again
    return strides[0] if shape[0] > 1 else 0, place or 0, strides[-2] if shape[-2] > 1 else 0


def _dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In memory row by row, in a dtype."""
    return x if x.dtype == dtype and x.is_contiguous() and not x.is_neg() else x.to(dtype).resolve_neg().contiguous()


def _precision(x: Tensor) -> str:
    """How products are taken: of float32 as three of TF32, or one where the program allows that; else as they are."""
    if x.dtype != torch.float32 or not x.is_cuda or torch.version.hip is not None or not _has_tensor_cores(x.device):
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@functools.cache
def kernels() -> ModuleType:
    """The kernels; Triton is imported when they are first needed."""
    return importlib.import_module("eyetoy_mm.ops.triton_kernels")


def _launch(
    name: str,
    programs: int,
    tensors: Sequence[Tensor],
    scales: Sequence[float],
    strides: Sequence[int],
    numbers: Sequence[int],
    options: dict[str, Any],
) -> None:
    """Run a kernel on the GPU of its tensors.

    What Triton finds out about forty arguments at each launch takes several times as long as a launch, so a kernel that
    was compiled is called as such where Triton would choose it again. That depends on what is here in the key.

    Args:
        name: Of the kernel, which takes what follows in this order.
        programs: Number of programs.
        tensors: All on one GPU.
        scales: Floats.
        strides: Of query, key and value, which it is specialised for.
        numbers: Those that it is not specialised for.
        options: Its constants and those of the compiler.
    """
    function = getattr(kernels(), name)
    arguments = (*tensors, *scales, *strides, *numbers)
    device = tensors[0].device
    grid = (programs, 1, 1)
    if device.type != "cuda" or torch.version.hip is not None:  # AMD's are specialised for the sizes of tensors, too
        function[grid](*arguments, **options)
        return
    key = (
        name,
        device.index,
        tuple([(x.dtype, x.data_ptr() % 16 == 0) for x in tensors]),
        tuple([(stride == 1, stride % 16 == 0, stride > 2**31 - 1) for stride in strides]),
        tuple(options.values()),
    )
    with torch.cuda.device(device) if device.index != torch.cuda.current_device() else contextlib.nullcontext():
        compiled = _COMPILED.get(key)
        if compiled is None:
            compiled = function[grid](*arguments, **options)
            _COMPILED[key] = compiled.result() if hasattr(compiled, "result") else compiled
        else:
            compiled[grid](*arguments, *[options[constant] for constant in function.arg_names[len(arguments) :]])


_COMPILED: dict[Any, Any] = {}


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
    plan = call.plan
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    logsumexp = torch.empty((*query.shape[:-1], 1), dtype=torch.float32, device=query.device)
    _launch(
        "attention_forward",
        plan.tiles * query.shape[-2] * len(query),
        (*call[:4], output, logsumexp),
        (scale * LOG2E,),
        call.strides,
        plan.numbers,
        plan.compilation | {"PRECISION": _precision(query)},
    )
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
    gradient, output = _dense(gradient, query.dtype), _dense(output, query.dtype)
    logsumexp = _dense(logsumexp, torch.float32)
    plan = call.plan
    batch, *spatial, heads, _ = query.shape
    query_gradient, key_gradient, value_gradient = (
        torch.empty(query.shape, dtype=query.dtype, device=query.device) for _ in range(3)
    )
    row_numbers = torch.empty((batch, heads, math.prod(spatial), 2), dtype=torch.float32, device=query.device)
    options = plan.compilation | {"PRECISION": _precision(query)}
    programs = plan.tiles * heads * batch
    others = (scale * LOG2E, scale), call.strides, plan.numbers, options
    of_queries = (*call[:4], output, logsumexp, gradient, query_gradient, row_numbers)
    _launch("attention_query_gradient", programs, of_queries, *others)
    of_keys = (*call[:4], gradient, row_numbers, key_gradient, value_gradient)
    _launch("attention_key_value_gradient", programs, of_keys, *others)
    bias_gradient = query.new_empty(0)
    if bias is not None:
        bias_gradient = _bias_gradient(call, bias, gradient, row_numbers, scale, options)
    return query_gradient, key_gradient, value_gradient, bias_gradient


PROGRAMS = 4096  # about, which is enough for any GPU; each of them sums over some of the tiles


def _bias_gradient(
    call: _Call, bias: Tensor, gradient: Tensor, row_numbers: Tensor, scale: float, options: dict[str, Any]
) -> Tensor:
    """The kernel's sums for each row and column of a tile; then those of each offset from row to column."""
    plan = call.plan
    rows = [options[size] for size in ("TD", "TH", "TW")]
    entries = [1] * (3 - (bias.dim() - 1)) + list(bias.shape[1:])
    box = [of_table + of_tile - 1 for of_table, of_tile in zip(entries, rows, strict=True)]
    programs = len(bias) * math.ceil(math.prod(box) / options["COLUMNS"])
    parts = min(plan.tiles * len(gradient), max(1, PROGRAMS // programs))
    sums = torch.empty(parts, len(bias), *rows, *box, dtype=torch.float32, device=bias.device)
    _launch(
        "attention_bias_gradient",
        programs * parts,
        (*call[:4], gradient, row_numbers, sums),
        (scale * LOG2E,),
        call.strides,
        (len(gradient), parts, *plan.numbers),
        {name: option for name, option in options.items() if name != "BIAS"},
    )
    sums = sums.sum(0)
    of_head, *strides = sums.stride()
    of_rows, of_box = strides[:3], strides[3:]
    # entry e of the table is row r with column r + e, for each r
    along = [row + column for row, column in zip(of_rows, of_box, strict=True)]
    pairs = sums.as_strided((len(bias), *entries, *rows), (of_head, *of_box, *along))
    return pairs.sum((-3, -2, -1)).view(bias.shape).to(bias.dtype)


OPERATOR = Operator("neighborhood_attention_triton", _forward, _backward, keeps=True)
