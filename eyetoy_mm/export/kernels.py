"""The kernels of this package as an operator of onnxruntime: a folder of libraries that goes where a file goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from eyetoy_mm.errors import UserError
from eyetoy_mm.export.runtimes import KERNELS, LIBRARY
from eyetoy_mm.ops.backend_cpp import FOLDER as SOURCES

_HEADER = "onnxruntime_c_api.h"
_WHERE = "they are in the folder include of onnxruntime's release archives; pip's onnxruntime has none"


def check_can_build(headers: Path) -> None:
    """Look for all that :func:`build_kernels` needs.

    Raises:
        UserError: The headers are not there, or there is no compiler or no compiled kernel.
    """
    if not (headers / _HEADER).is_file():
        raise UserError(f"--onnxruntime-headers {headers} has no {_HEADER}; {_WHERE}")
    if not _compiled():
        raise UserError("the kernels of this package are not compiled; install a C++ compiler, then install it again")
    _compiler()


def build_kernels(folder: Path, headers: Path) -> Path:
    """Compile the operator against onnxruntime's headers, and put the compiled kernels beside it.

    The libraries know nothing of Python and PyTorch. They run with onnxruntime 1.17 or newer, on machines of this
    architecture; which instruction set is used is decided where they are loaded.

    Args:
        folder: Where the folder :data:`~eyetoy_mm.export.runtimes.KERNELS` goes.
        headers: The folder that has onnxruntime_c_api.h.

    Returns:
        The library to register.

    Raises:
        UserError: The headers are not there, are too old, or there is no compiler or no compiled kernel.
    """
    check_can_build(headers)
    target = folder / KERNELS
    target.mkdir(parents=True, exist_ok=True)
    library = target / LIBRARY
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{headers}"]
    command = [_compiler(), *flags, str(SOURCES / "onnxruntime.cpp"), "-o", str(library), "-ldl", "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise UserError(
            f"the operator does not compile against the headers in {headers}, which should be those of onnxruntime "
            f"1.17 or newer: {errors[0]}"
        )
    for kernel in _compiled():
        shutil.copy2(kernel, target)
    return library


def _compiled() -> list[Path]:
    return sorted(SOURCES.glob("*.so"))


def _compiler() -> str:
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name]
    found = [path for path in map(shutil.which, names) if path]
    if not found:
        raise UserError(f"--kernels eyetoy needs a C++ compiler; there is none of {', '.join(names)}")
    return found[0]
