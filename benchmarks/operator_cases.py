"""Random cases of neighborhood attention, every back end that runs here against an independent loop.

    python benchmarks/operator_cases.py --cases 10000 --seed 0

A case is drawn whole: one to three axes of any length (0 included), windows odd, even and larger than the map,
dilation, batch, heads and fewer of key and value, another width of values, bias, scale, floating type, the layout of
every tensor in memory and of the gradient that comes in, and the number of threads. What is compared is the output and
the gradient of every input, with :func:`brute_force` in double precision on the same numbers.

Prints a table: cases and worst differences for each back end and type, in units of the type's precision (``eps``) at
the largest expected value or 1. The exit code is 1 where one is beyond :data:`ALLOWED`; each such case is printed, and
comes back with ``--only NUMBER``. The suite runs some hundreds of such cases.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import random
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyetoy_mm.ops import BACKENDS, backend_cpp, backend_flex, dense_form, neighborhood_attention
from eyetoy_mm.ops.neighborhood import Neighborhood

# What a difference may be, in units of eps. Scores and sums are of float32 at least, so that of the small types is
# mostly the last rounding, and of grouped heads the sum over a group, which autograd takes in the small type.
ALLOWED = {torch.float64: 200.0, torch.float32: 200.0, torch.float16: 8.0, torch.bfloat16: 8.0}
LAYOUTS = ("contiguous", "packed", "transposed", "sliced", "expanded", "negative")


@dataclass(frozen=True)
class Case:
    """One call of the operator."""

    number: int
    batch: int
    spatial: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    heads: int
    key_heads: int
    dim: int
    value_dim: int
    bias: torch.dtype | None
    scale: float | None
    dtype: torch.dtype
    layouts: tuple[str, ...]  # of query, key, value and the gradient of the output
    threads: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of query, key, value and the output."""
        heads = (self.heads, self.key_heads, self.key_heads, self.heads)
        dims = (self.dim, self.dim, self.value_dim, self.value_dim)
        return tuple((self.batch, *self.spatial, *sizes) for sizes in zip(heads, dims, strict=True))


def draw(number: int, seed: int = 0) -> Case:
    """The case of this number; it depends on nothing else."""
    rng = random.Random(f"{seed} {number}")
    ndim = rng.choice((1, 2, 2, 2, 3))
    spatial = tuple(rng.randint(1, (48, 13, 6)[ndim - 1]) for _ in range(ndim))
    if rng.random() < 0.03:
        spatial = (0, *spatial[1:])
    key_heads = rng.choice((1, 1, 2, 3))
    dim = rng.choice((1, 2, 3, 4, 8, 8, 16, 17, 32, 33, 64, 72, 130))
    dtype = rng.choice((torch.float64, torch.float32, torch.float32, torch.float16, torch.bfloat16))
    return Case(
        number=number,
        batch=0 if rng.random() < 0.03 else rng.randint(1, 3),
        spatial=spatial,
        kernel_size=tuple(rng.randint(1, min(length + 3, 13)) for length in spatial),
        dilation=tuple(rng.choice((1, 1, 1, 2, 3, 5)) for _ in spatial),
        heads=key_heads * rng.choice((1, 1, 1, 2, 3)),
        key_heads=key_heads,
        dim=dim,
        value_dim=0 if rng.random() < 0.02 else dim if rng.random() < 0.7 else rng.choice((1, 5, 16, 24)),
        bias=rng.choice((None, dtype, torch.float32)),
        scale=rng.choice((None, None, 0.3, 1.0, -0.5, 0.0)),
        dtype=dtype,
        layouts=tuple(rng.choice(LAYOUTS) for _ in range(4)),
        threads=rng.choice((1, 1, 2, 3)),
    )


# --- Tensors ----------------------------------------------------------------------------------------------------------


def tensors(case: Case) -> tuple[list[Tensor], list[Callable[[Tensor], Tensor]]]:
    """What is drawn (query, key, value, gradient of the output, bias) and how each becomes an argument.

    Leaves are contiguous; the function gives a tensor of the wanted layout that depends on all of a leaf.
    """
    generator = torch.Generator().manual_seed(case.number)
    leaves, views = [], []
    for shape, layout in zip(case.shapes, case.layouts, strict=True):
        shape, view = laid_out(shape, layout)
        leaves.append(torch.randn(shape, generator=generator).to(case.dtype))
        views.append(view)
    if case.bias is not None:
        table = (case.heads, *(2 * size - 1 for size in case.kernel_size))
        leaves.append(torch.randn(table, generator=generator).to(case.bias))
        views.append(lambda x: x)
    return leaves, views


def laid_out(shape: tuple[int, ...], layout: str) -> tuple[tuple[int, ...], Callable[[Tensor], Tensor]]:
    """The shape to draw and the function that makes a tensor of ``shape`` from it."""
    if layout == "packed":  # as from one projection of query, key and value
        return (*shape[:-2], 3, *shape[-2:]), lambda x: x[..., 1, :, :]
    if layout == "transposed":  # channels first
        return (shape[0], *shape[-2:], *shape[1:-2]), lambda x: x.movedim((1, 2), (-2, -1))
    if layout == "sliced":  # neither begins nor ends where its memory does, and not every element counts
        return (*shape[:-1], 2 * shape[-1] + 1), lambda x: x[..., 1::2]
    if layout == "expanded":  # every entry of the batch the same memory
        return (1, *shape[1:]), lambda x: x.expand(shape)
    if layout == "negative":  # to be negated when read
        return shape, lambda x: torch._neg_view(-x)
    return shape, lambda x: x


def results(
    case: Case, attend: Callable[..., Tensor], dtype: torch.dtype | None = None, grad: bool = True
) -> list[Tensor]:
    """Output and gradients of ``attend(query, key, value, bias)``; computed in ``dtype``, where one is given."""
    leaves, views = tensors(case)
    leaves = [x.to(dtype or x.dtype) for x in leaves]
    gradient = views[3](leaves.pop(3))
    del views[3]
    for leaf in leaves:
        leaf.requires_grad_(grad)
    query, key, value, *bias = [view(leaf) for view, leaf in zip(views, leaves, strict=True)]
    output = attend(query, key, value, bias[0] if bias else None)
    return [output.detach(), *(torch.autograd.grad(output, leaves, gradient) if grad else ())]


# --- What is right ----------------------------------------------------------------------------------------------------


def window(position: int, length: int, kernel_size: int, dilation: int) -> list[int]:
    """Positions that one attends to along an axis, by the words of the paper.

    The nearest ``kernel_size`` of those that are a multiple of ``dilation`` away, an even window one more to the left;
    at a border the window is moved inward until it lies on the axis, and is the whole axis where it is larger.
    """
    reachable = [other for other in range(length) if (other - position) % dilation == 0]
    here = reachable.index(position)
    wanted = list(range(here - kernel_size // 2, here - kernel_size // 2 + kernel_size))
    while wanted[0] < 0:
        wanted = [index + 1 for index in wanted]
    while wanted[-1] >= len(reachable) and wanted[0] > 0:
        wanted = [index - 1 for index in wanted]
    return [reachable[index] for index in wanted if index < len(reachable)]


def brute_force(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Position by position: the keys in its window; then scores with these alone, softmax, mean of their values."""
    scale = case.dim**-0.5 if case.scale is None else case.scale
    group = case.heads // case.key_heads
    key, value = (torch.stack([x[..., head // group, :] for head in range(case.heads)], dim=-2) for x in (key, value))
    q, k, v = (x.flatten(1, -3) for x in (query, key, value))  # (B, N, heads, dim)
    output = value.sum() * query.new_zeros(case.shapes[3]).flatten(1, -3)
    by_number_of_keys = defaultdict(list)
    for number, position in enumerate(itertools.product(*map(range, case.spatial))):
        keys, biases = neighbors(case, position)
        by_number_of_keys[len(keys)].append((number, keys, biases))
    for alike in by_number_of_keys.values():
        numbers, keys, biases = map(torch.tensor, zip(*alike, strict=True))
        scores = scale * torch.einsum("bphd,bpnhd->bpnh", q[:, numbers], k[:, keys])
        if bias is not None:
            scores = scores + bias.flatten(1)[:, biases].permute(1, 2, 0)
        output = output.index_copy(1, numbers, torch.einsum("bpnh,bpnhd->bphd", scores.softmax(2), v[:, keys]))
    return output.unflatten(1, case.spatial) + 0 * sum(x.sum() for x in (query, key, bias) if x is not None)


def neighbors(case: Case, position: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Numbers of the keys of a position, row by row, and of their entries in a head's table of biases."""
    keys, biases = [0], [0]
    for here, length, kernel_size, dilation in zip(
        position, case.spatial, case.kernel_size, case.dilation, strict=True
    ):
        there = window(here, length, kernel_size, dilation)
        steps = [(other - here) // dilation + kernel_size - 1 for other in there]
        keys = [before * length + other for before in keys for other in there]
        biases = [before * (2 * kernel_size - 1) + step for before in biases for step in steps]
    return keys, biases


# --- What is compared -------------------------------------------------------------------------------------------------


class UncompiledFlex:
    """The ``flex`` back end as PyTorch runs it without a compiler, and so without gradients."""

    def refusal(self, query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
        """It runs every case."""
        return None

    def attend(self, *arguments: Any) -> Tensor:
        """As the back end does."""
        with torch.compiler.set_stance("force_eager"):
            return backend_flex.attend(*arguments)


@contextlib.contextmanager
def form(name: str) -> Iterator[str]:
    """A form of a back end, as :func:`forms` names it; gives the name by which the operator is called."""
    backend, _, of = name.partition(" ")
    small_map, kernels = dense_form.SMALL_MAP, backend_cpp.KERNELS
    try:
        if backend == "torch":
            dense_form.SMALL_MAP = 0 if of == "blocked" else small_map
        elif backend == "cpp":
            backend_cpp.KERNELS = library(of)
        elif backend == "flex":
            BACKENDS["flex uncompiled"] = UncompiledFlex()
        yield "flex uncompiled" if backend == "flex" else backend
    finally:
        dense_form.SMALL_MAP, backend_cpp.KERNELS = small_map, kernels
        BACKENDS.pop("flex uncompiled", None)


library = functools.cache(lambda name: backend_cpp.load([name]))


def forms() -> list[str]:
    """All that runs here: both forms of ``torch``, every compiled library, ``flex`` without a compiler."""
    compiled = [name for name in backend_cpp.instruction_sets() if (backend_cpp.FOLDER / f"{name}.so").is_file()]
    return ["torch dense", "torch blocked", *(f"cpp {name}" for name in compiled), "flex uncompiled", "reference"]


def runs(name: str, case: Case) -> bool:
    """Whether a form is for this case."""
    if name.startswith("cpp"):
        return case.dtype != torch.float64
    if name.startswith("flex"):  # slow; a bias of another type is not its own
        return case.number % 16 == 0 and case.bias in (None, case.dtype)
    return True


def differences(case: Case, names: Sequence[str] | None = None) -> dict[str, tuple[float, str]]:
    """For each form, of these names or of all, the worst difference in units of eps and what differs so."""
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        expected = results(case, functools.partial(brute_force, case), torch.float64)
        found = {}
        for name in names or forms():
            if runs(name, case):
                with form(name) as backend:
                    found[name] = worst(case, call(case, backend, not name.startswith("flex")), expected)
        return found
    finally:
        torch.set_num_threads(before)


def call(case: Case, backend: str, grad: bool) -> list[Tensor]:
    """Output and gradients by the operator."""

    def attend(*inputs: Tensor | None) -> Tensor:
        query, key, value, bias = inputs
        return neighborhood_attention(
            query, key, value, case.kernel_size, case.dilation, bias, case.scale, backend=backend
        )

    return results(case, attend, grad=grad)


def worst(case: Case, actual: list[Tensor], expected: list[Tensor]) -> tuple[float, str]:
    """The largest difference of output and gradients; infinite where shape, type or finiteness differ."""
    names = ["output", "gradient of query", "gradient of key", "gradient of value", "gradient of bias"]
    found = (0.0, "nothing")
    for name, a, e in zip(names, actual, expected):  # flex has the output alone
        dtype = case.bias if name.endswith("bias") and case.bias else case.dtype
        if a.shape != e.shape or a.dtype != dtype or not a.isfinite().all():
            return math.inf, f"{name}: {a.dtype} {tuple(a.shape)}, expected finite {dtype} {tuple(e.shape)}"
        if a.numel():
            eps = max(torch.finfo(dtype).eps, torch.finfo(case.dtype).eps)
            difference = float((a.double() - e).abs().max()) / eps / max(1.0, float(e.abs().max()))
            found = max(found, (difference, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run this case alone")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
    began = time.perf_counter()
    table: dict[tuple[str, torch.dtype], list[tuple[float, str]]] = defaultdict(list)
    failed = 0
    for number in range(args.cases) if args.only is None else [args.only]:
        case = draw(number, args.seed)
        for name, (difference, what) in differences(case).items():
            table[name, case.dtype].append((difference, what))
            if not difference <= ALLOWED[case.dtype]:
                failed += 1
                print(f"{name} is {difference:.3g} eps away in the {what}: {case}", flush=True)
    print(f"\nseed {args.seed}, {args.cases} cases, torch {torch.__version__}, {time.perf_counter() - began:.0f} s\n")
    print("| back end | type | cases | worst, in eps | of |\n|---|---|---|---|---|")
    for (name, dtype), found in sorted(table.items(), key=lambda item: (forms().index(item[0][0]), str(item[0][1]))):
        difference, what = max(found)
        print(f"| {name} | {str(dtype).removeprefix('torch.')} | {len(found)} | {difference:.2g} | {what} |")
    compared = sum(map(len, table.values()))
    print(f"\n{compared} comparisons, {failed} beyond {', '.join(f'{v:.0f} eps ({k})' for k, v in ALLOWED.items())}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
