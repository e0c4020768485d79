"""Compile the kernels of the ``triton`` back end for GPUs that are not here, and say what the compilers made of them.

    python benchmarks/triton_builds.py                                    # all GPUs, dtypes and head dims
    python benchmarks/triton_builds.py --targets sm_90 --dims 32 --dtypes bfloat16 --axes 2

Prints a markdown table, a row for each choice of :func:`eyetoy_mm.ops.backend_triton.launch_of` on each GPU: registers,
words spilled to memory, shared memory, and instructions of the loop over the halo, for the forward pass, the gradient
of queries, that of keys and values, and that of a bias. No GPU is needed: Triton makes the program of any (``cubin``,
``amdgcn``), and the tools of NVIDIA that come with it read its own. The exit code is 1 where a build fails.
"""

from __future__ import annotations

import argparse
import functools
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eyetoy_mm.ops import backend_triton, triton_kernels

TARGETS = {
    **{f"sm_{number}": GPUTarget("cuda", number, 32) for number in (75, 80, 86, 89, 90, 100, 120)},
    **{name: GPUTarget("hip", name, 64) for name in ("gfx90a", "gfx942")},
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
KERNELS = {
    "forward": triton_kernels.attention_forward,
    "queries": triton_kernels.attention_query_gradient,
    "keys, values": triton_kernels.attention_key_value_gradient,
    "bias": triton_kernels.attention_bias_gradient,
}
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
IN_FLOAT32 = ("bias", "logsumexp", "row_numbers", "bias_gradient")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Build(NamedTuple):
    """One kernel for one GPU."""

    registers: int
    spilled: int  # loads and stores of registers in memory
    shared: int  # bytes
    instructions: int
    loop: int  # instructions of the longest one with matrix instructions, else of the longest one
    matrix: int  # matrix instructions
    atomics: int
    seconds: float


def build(
    kernel: str, target: str, dtype: torch.dtype = torch.bfloat16, dim: int = 32, axes: int = 2, bias: bool = False
) -> Build:
    """Compile what the back end would launch on a GPU of this kind."""
    gpu = TARGETS[target]
    itemsize = torch.empty((), dtype=dtype).element_size()
    tensor_cores = gpu.backend == "hip" or gpu.arch >= 80
    launch = backend_triton.launch_of(axes, dim, itemsize, bias or kernel == "bias", tensor_cores)
    constants: dict[str, Any] = dict(
        zip(("TD", "TH", "TW"), launch.rows),
        HEAD_DIM=dim,
        DIM=max(16, triton.next_power_of_2(dim)),
        COLUMNS=launch.columns,
        AXES=max(2, axes),
        PRECISION="tf32x3" if tensor_cores and gpu.backend == "cuda" and itemsize == 4 else "ieee",
    )
    if kernel != "bias":
        constants["BIAS"] = bias
    function = KERNELS[kernel]
    signature, attributes = {}, {}
    for number, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = _type(name, DTYPES[dtype])
        if "*" in signature[name] or name.endswith("_stride"):  # memory of tensors begins at multiples of 16 bytes
            attributes[number,] = [["tt.divisibility", 16]]
    begin = time.perf_counter()
    made = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=gpu,
        options=dict(num_warps=launch.warps, num_stages=launch.stages),
    )
    seconds = time.perf_counter() - begin
    read = _read_cubin(made.asm["cubin"]) if "cubin" in made.asm else _read_amdgcn(made.asm["amdgcn"])
    return Build(shared=made.metadata.shared, seconds=seconds, **read)


def _type(name: str, dtype: str) -> str:
    if name in ("scale", "gradient_scale"):
        return "fp32"
    if name in IN_FLOAT32:
        return "*fp32"
    is_tensor = name in ("query", "key", "value", "output", "gradient") or name.endswith("_gradient")
    return f"*{dtype}" if is_tensor else "i32"


def _read_cubin(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        text = _tool("nvdisasm", "-c", file.name)
    registers = re.search(r"REG:(\d+)", usage)
    assert registers, usage
    code, labels, loops = [], {}, []
    for line in text.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(.*?);", line):
            code.append(instruction[1])
            back = re.match(r"BRA.*`\((\.L_x_\d+)\)", instruction[1])
            if back and labels.get(back[1], len(code)) < len(code) - 1:
                loops.append(code[labels[back[1]] :])
    return dict(registers=int(registers[1]), **_count(code, loops, r"\w*MMA\b", r"(STL|LDL)\b", r"(ATOM\w*|RED)\b"))


def _read_amdgcn(text: str) -> dict[str, int]:
    registers = re.search(r"\.vgpr_count:\s+(\d+)", text)
    spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", text)
    assert registers and spilled
    code, labels, loops = [], {}, []
    for line in text.splitlines():
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.match(r"\s+((?:[vs]|ds|global|buffer)_\w+.*)", line):
            code.append(instruction[1])
            back = re.match(r"s_c?branch\w*\s+(\.LBB\w+)", instruction[1])
            if back and labels.get(back[1], len(code)) < len(code) - 1:
                loops.append(code[labels[back[1]] :])
    counts = _count(code, loops, r"v_(mfma|wmma)", r"$^", r"(global|buffer)_atomic")
    return dict(registers=int(registers[1]), **counts) | dict(spilled=int(spilled[1]))


def _count(code: list[str], loops: list[list[str]], matrix: str, spilled: str, atomic: str) -> dict[str, int]:
    def number(pattern: str, lines: list[str]) -> int:
        return sum(re.match(pattern, line) is not None for line in lines)

    loop = max(loops, key=lambda lines: (number(matrix, lines) > 0, len(lines)), default=[])
    counts = dict(matrix=number(matrix, code), spilled=number(spilled, code), atomics=number(atomic, code))
    return dict(instructions=len(code), loop=len(loop), **counts)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def runs(target: str, dtype: torch.dtype, dim: int) -> bool:
    """Whether the back end takes this case there."""
    return target != "sm_75" or (dim <= 32 and dtype != torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--dims", nargs="+", type=int, default=[16, 32, 64, 128, 256])
    names = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    parser.add_argument("--dtypes", nargs="+", choices=names, default=list(names))
    parser.add_argument("--axes", nargs="+", type=int, choices=[1, 2, 3], default=[2])
    arguments = parser.parse_args()
    columns = [f"{name}{with_bias}" for with_bias in ("", " + bias") for name in list(KERNELS)[:3]]
    print(f"torch {torch.__version__}, triton {triton.__version__}: registers / spilled / shared KB / loop\n")
    print(f"| GPU | dtype | axes | head dim | {' | '.join(columns)} | bias | seconds |")
    print("|---" * (len(columns) + 6) + "|")
    failed = 0
    for target in arguments.targets:
        for name in arguments.dtypes:
            for axes in arguments.axes:
                for dim in arguments.dims:
                    if not runs(target, names[name], dim):
                        continue
                    make = functools.partial(build, target=target, dtype=names[name], dim=dim, axes=axes)
                    cells, seconds = [], 0.0
                    for kernel, bias in [(k, b) for b in (False, True) for k in list(KERNELS)[:3]] + [("bias", True)]:
                        try:
                            made = make(kernel, bias=bias)
                        except Exception as error:  # of the compilers: one build says nothing of the others
                            cells.append(
                                f"{type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"
                            )
                            failed += 1
                            continue
                        seconds += made.seconds
                        shown = f"{made.registers} / {made.spilled} / {made.shared / 1024:.0f} / {made.loop}"
                        cells.append(shown if made.matrix else f"{shown}, no matrix instructions")
                    print(f"| {target} | {name} | {axes} | {dim} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
