"""The ``cpp`` back end: compiled kernels for float32 on a CPU, exact and trainable. See ``cpp/neighborhood.h``.

They are compiled when the package is installed, where there is a C++ compiler, once for each instruction set; the best
one that the machine has is loaded. They know nothing of Python or PyTorch: pointers, sizes and strides are handed over,
and the threads are PyTorch's own. float16 and bfloat16 inputs are computed in float32.
"""

from __future__ import annotations

import array
import ctypes
import functools
import math
import operator
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops import plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood
from eyetoy_mm.ops.operator import Operator

FOLDER = Path(__file__).parent / "cpp"
INTERFACE = 3  # as in cpp/interface.h
LARGEST_HEAD_DIM = 256


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Why the kernels cannot run this case, or None."""
    if query.device.type != "cpu":
        return f"its kernels are for CPUs, the query is on {query.device}"
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels compute in float32, the query is {query.dtype}"
    if query.shape[-1] > LARGEST_HEAD_DIM:
        return f"its kernels are for a head_dim of at most {LARGEST_HEAD_DIM}, got {query.shape[-1]}"
    return KERNELS if isinstance(KERNELS, str) else None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Call the kernels; plain operators while a graph is exported."""
    if plain_form.is_wanted():
        return plain_form.attend(query, key, value, neighborhood, bias, scale)
    dim, value_dim = query.shape[-1], value.shape[-1]
    if value_dim > LARGEST_HEAD_DIM:  # the output is linear in the values
        parts = value.split(LARGEST_HEAD_DIM, dim=-1)
        return torch.cat([attend(query, key, part, neighborhood, bias, scale) for part in parts], dim=-1)
    if dim != value_dim:  # the kernels know one; zeros change neither scores nor values
        query, key, value = (F.pad(x, (0, max(dim, value_dim) - x.shape[-1])) for x in (query, key, value))
        return attend(query, key, value, neighborhood, bias, scale)[..., :value_dim]
    if bias is None and neighborhood.is_global:  # a sequence fills tiles better
        length = math.prod(neighborhood.spatial)
        q, k, v = (x.flatten(1, -3) for x in (query, key, value))
        return OPERATOR(q, k, v, None, (length,), (1,), scale).view(query.shape)
    return OPERATOR(query, key, value, bias, neighborhood.kernel_size, neighborhood.dilation, scale)


# --- What cpp/neighborhood.h asks for ---------------------------------------------------------------------------------


def checked(x: Tensor, shape: Sequence[int]) -> int:
    """Address of what the kernels may read or write as ``shape``; the only way by which one reaches them.

    Raises:
        TypeError: The tensor is not what they take for granted.
    """
    if x.dtype != torch.float32 or not x.is_cpu or x.layout != torch.strided or x.is_neg():
        kind = f"{x.layout} {x.dtype} on {x.device}{' with the negative bit' if x.is_neg() else ''}"
        raise TypeError(f"the kernels take strided float32 in the memory of a CPU, got {kind}")
    if x.shape != shape or (x.stride(-1) != 1 and shape[-1] > 1):
        raise TypeError(
            f"the kernels take shape {tuple(shape)} with a last stride of 1, got {tuple(x.shape)} by {x.stride()}"
        )
    size = x.numel()
    if not size:
        return x.data_ptr()
    reach = size if x.is_contiguous() else 1 + sum(map(operator.mul, [n - 1 for n in shape], x.stride()))
    storage = x.untyped_storage()  # of a wrapper or fake tensor, or freed by who shards or offloads
    is_elsewhere = type(x) not in (Tensor, torch.nn.Parameter) and storage.device.type != "cpu"
    if is_elsewhere or storage.nbytes() < (x.storage_offset() + reach) * 4 or not storage.data_ptr():
        raise TypeError(
            f"the kernels take tensors with memory behind them, got {type(x).__name__} {tuple(x.shape)} with "
            f"{storage.nbytes()} bytes on {storage.device}"
        )
    return x.data_ptr()


@functools.lru_cache(maxsize=4096)
def _numbers(shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], scale: float) -> list[int]:
    """The numbers of a ``Problem``.

    They are checked: the kernels divide by them and reserve memory for them, and who calls the node itself has not been
    checked before.

    Raises:
        ValueError: They would not get it.
    """
    axes = len(shape) - 3
    if not 1 <= axes <= 3 or not 1 <= shape[-1] <= LARGEST_HEAD_DIM:
        raise ValueError(
            f"the kernels take (B, *spatial, heads, head_dim) with 1 to 3 spatial axes and a head_dim of 1 to "
            f"{LARGEST_HEAD_DIM}, got {tuple(shape)}"
        )
    for name, numbers in (("kernel_size", kernel_size), ("dilation", dilation)):
        if len(numbers) != axes or any(number < 1 for number in numbers):
            raise ValueError(f"{name} must be at least 1 on each of {axes} spatial axes, got {list(numbers)}")
    batch, *spatial, heads, dim = shape
    unused = [1] * (3 - axes)
    words = [batch, heads, dim, *unused, *spatial, *unused, *kernel_size, *unused, *dilation]
    return [*words, *struct.unpack("q", struct.pack("d", scale))]


def _strided(x: Tensor, shape: Sequence[int]) -> list[int]:
    """A tensor as a ``Strided``."""
    address = checked(x, shape)
    batch, *strides, head, _ = x.stride()
    return [address, batch, *[0] * (3 - len(strides)), *strides, head]


def _packed(x: Tensor, shape: Sequence[int]) -> list[int]:
    """The three parts of ``(B, *spatial, 3, heads, dim)`` as a ``Strided`` each."""
    first = checked(x, (*shape[:-2], 3, *shape[-2:]))
    batch, *strides, part, head, _ = x.stride()
    layout = [batch, *[0] * (3 - len(strides)), *strides, head]
    return [word for i in range(3) for word in (first + 4 * i * part, *layout)]


def run(
    function: str,
    tensors: Sequence[Tensor],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    bias: Tensor | None = None,
    bias_gradient: Tensor | None = None,
) -> None:
    """Call a function of the library on a case; a tensor that has one axis more than the others is three in one."""
    if isinstance(KERNELS, str):
        raise RuntimeError(KERNELS)
    shape = min(tensors, key=Tensor.dim).shape
    # as a ``Problem``, of 64 bits each
    words = [*_numbers(shape, tuple(kernel_size), tuple(dilation), scale), torch.get_num_threads(), PARALLEL or 0]
    table = (shape[-2], *(2 * size - 1 for size in kernel_size))
    for x in (bias, bias_gradient):
        if x is not None and not x.is_contiguous():
            raise TypeError(f"the kernels take a contiguous bias, got {tuple(x.shape)} by {x.stride()}")
        words.append(0 if x is None else checked(x, table))
    problem = len(words)
    for x in tensors:
        words += _packed(x, shape) if x.dim() > len(shape) else _strided(x, shape)
    structures = array.array("q", words)
    base = structures.buffer_info()[0]
    call(function, base, *range(base + 8 * problem, base + 8 * len(words), 48))


def call(function: str, *addresses: int) -> None:
    """Call a function of the library with addresses of structures and of what :func:`checked` has seen.

    Raises:
        MemoryError: It found none.
    """
    if getattr(KERNELS, function)(*map(ctypes.c_void_p, addresses)) < 0:
        raise MemoryError(f"out of memory in {function}")


# --- The library ------------------------------------------------------------------------------------------------------


def instruction_sets() -> tuple[str, ...]:
    """Names of the libraries that this machine can run, the best first."""
    best = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}.get(best, ("baseline",))


def load(names: Sequence[str]) -> ctypes.CDLL | str:
    """The first of these libraries that was compiled, or the reason why there is none."""
    files = [file for name in names if (file := FOLDER / f"{name}.so").is_file()]
    if not files:
        return "its kernels are not compiled; install a C++ compiler (g++ or clang), then install eyetoy-mm again"
    try:
        library = ctypes.CDLL(str(files[0]))
        interface = library.eyetoy_interface()
    except (OSError, AttributeError) as error:
        return f"its kernels cannot be loaded ({error}); install eyetoy-mm again"
    if interface != INTERFACE:
        return f"{files[0]} was compiled from another version of eyetoy-mm; install eyetoy-mm again"
    return library


def threads_of_torch() -> int | None:
    """Address of the function by which PyTorch's OpenMP library runs a function on its threads, or None."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None  # the kernels start threads of their own


# When imported, and not at the first call, which may be one that torch.compile looks into.
KERNELS = load(instruction_sets())
PARALLEL = threads_of_torch()


def _leave_threads_of_torch() -> None:
    """In a forked process, which has none of OpenMP's threads: its library would wait for them for ever."""
    global PARALLEL
    PARALLEL = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_threads_of_torch)


def readable(x: Tensor) -> Tensor:
    """As the kernels read it: float32, and the elements of a head next to each other."""
    x = x.float().resolve_neg()
    return x if x.stride(-1) == 1 else x.contiguous()


def _table(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float().resolve_neg().contiguous()


# --- The operators ----------------------------------------------------------------------------------------------------


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> Tensor:
    q, k, v = readable(query), readable(key), readable(value)
    output = q.new_empty(q.shape)
    run("eyetoy_forward", (q, k, v, output), kernel_size, dilation, scale, _table(bias))
    return output.to(query.dtype)


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g, q, k, v = readable(gradient), readable(query), readable(key), readable(value)
    dq, dk, dv = q.new_empty(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
    table = _table(bias)
    table_gradient = None if table is None else table.new_zeros(table.shape)
    run("eyetoy_backward", (g, q, k, v, dq, dk, dv), kernel_size, dilation, scale, table, table_gradient)
    bias_gradient = query.new_empty(0) if bias is None or table_gradient is None else table_gradient.to(bias.dtype)
    return dq.to(query.dtype), dk.to(query.dtype), dv.to(query.dtype), bias_gradient


OPERATOR = Operator("neighborhood_attention_cpp", _forward, _backward)
