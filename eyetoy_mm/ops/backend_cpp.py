"""The ``cpp`` back end: compiled kernels for float32 on a CPU, exact and trainable. See ``cpp/neighborhood.h``.

They are compiled when the package is installed, where there is a C++ compiler, once for each instruction set; the best
one that the machine has is loaded. They know nothing of Python or PyTorch: pointers, sizes and strides are handed over,
and the threads are PyTorch's own. float16 and bfloat16 inputs are computed in float32.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eyetoy_mm.ops import plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood
from eyetoy_mm.ops.operator import register

FOLDER = Path(__file__).parent / "cpp"
INTERFACE = 1  # as in cpp/neighborhood.h
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
    if bias is None and neighborhood.is_global:  # a sequence fills tiles better
        length = math.prod(neighborhood.spatial)
        q, k, v = (x.flatten(1, -3) for x in (query, key, value))
        return _operator(q, k, v, None, (length,), (1,), scale).view(query.shape)
    return _operator(query, key, value, bias, neighborhood.kernel_size, neighborhood.dilation, scale)


# --- What cpp/neighborhood.h asks for ---------------------------------------------------------------------------------

_Axes = ctypes.c_int64 * 3


class _Strided(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("axis", _Axes), ("head", ctypes.c_int64)]

    @classmethod
    def of(cls, x: Tensor) -> _Strided:
        batch, *axes, head, _ = x.stride()
        return cls(x.data_ptr(), batch, _Axes(*[0] * (3 - len(axes)), *axes), head)


class _Problem(ctypes.Structure):
    _fields_ = [
        ("batch", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("length", _Axes),
        ("kernel", _Axes),
        ("dilation", _Axes),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("bias_gradient", ctypes.c_void_p),
    ]

    @classmethod
    def of(cls, query: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], scale: float) -> _Problem:
        batch, *spatial, heads, dim = query.shape
        ones = [1] * (3 - len(spatial))
        axes = (_Axes(*ones, *sizes) for sizes in (spatial, kernel_size, dilation))
        return cls(batch, heads, dim, *axes, scale, torch.get_num_threads(), PARALLEL)


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


def _run(function: str, problem: _Problem, tensors: Sequence[Tensor]) -> None:
    if isinstance(KERNELS, str):
        raise RuntimeError(KERNELS)
    strided = [_Strided.of(x) for x in tensors]
    status = KERNELS[function](ctypes.byref(problem), *map(ctypes.byref, strided))
    if status < 0:
        raise MemoryError(f"out of memory in neighborhood attention over {tuple(tensors[0].shape)}")


def _float(x: Tensor) -> Tensor:
    """As the kernels read it: float32, and the elements of a head next to each other."""
    x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


# --- The operators ----------------------------------------------------------------------------------------------------


def _forward(query, key, value, bias, kernel_size, dilation, scale):
    q, k, v = _float(query), _float(key), _float(value)
    output = torch.empty_like(q, memory_format=torch.contiguous_format)
    problem = _Problem.of(q, kernel_size, dilation, scale)
    if bias is not None:
        bias = bias.float().contiguous()
        problem.bias = bias.data_ptr()
    _run("eyetoy_forward", problem, (q, k, v, output))
    return output.to(query.dtype)


def _backward(gradient, query, key, value, bias, kernel_size, dilation, scale):
    g, q, k, v = _float(gradient), _float(query), _float(key), _float(value)
    dq, dk, dv = torch.empty(q.shape), torch.zeros(q.shape), torch.zeros(q.shape)
    problem = _Problem.of(q, kernel_size, dilation, scale)
    bias_gradient = torch.zeros(0 if bias is None else bias.shape)
    if bias is not None:
        table = bias.float().contiguous()
        problem.bias, problem.bias_gradient = table.data_ptr(), bias_gradient.data_ptr()
    _run("eyetoy_backward", problem, (g, q, k, v, dq, dk, dv))
    return *(x.to(query.dtype) for x in (dq, dk, dv)), bias_gradient.to(query.dtype if bias is None else bias.dtype)


_operator = register("neighborhood_attention_cpp", _forward, _backward)
