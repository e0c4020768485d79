"""Exported files as functions from images to arrays, each in the runtime that it is for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eyetoy_mm.errors import UserError

if TYPE_CHECKING:
    import torch

Run = Callable[[np.ndarray], list[np.ndarray]]
INPUT = "images"
KERNELS, LIBRARY = "eyetoy_kernels", "onnxruntime.so"  # a folder beside an ONNX file, and in it the one to register


def is_exported(path: str | Path) -> bool:
    """Whether a file is one that :func:`open_file` opens, by its name."""
    return Path(path).suffix in _OPENERS


def open_file(path: Path, device: str = "cpu", threads: int = 1) -> Run:
    """Open an exported file.

    Args:
        path: The file.
        device: ``"cpu"`` or ``"cuda"``.
        threads: How many it may use on a CPU.

    Returns:
        A function from float32 images ``(B, 3, H, W)``, RGB, 0..255, to the file's outputs. It raises a UserError where
        there is no image.

    Raises:
        UserError: There is no such file, its runtime is not installed, or does not have the device.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return _OPENERS[path.suffix](path, device, threads)


def need(purpose: str, *packages: str) -> None:
    """Check that packages are there.

    Raises:
        UserError: Some are not; it says what to install.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def open_onnx(path: Path, device: str = "cpu", threads: int = 1) -> Run:
    """Open an ONNX file, with our kernels where they are beside it; the rest as in :func:`open_file`."""
    library = path.parent / KERNELS / LIBRARY
    session = open_session(str(path), device, threads, library if library.is_file() else None)
    return run_of(session)


def run_of(session: Any) -> Run:
    """A session of onnxruntime as a function."""
    return _checked(lambda images: session.run(None, {INPUT: images}))


def open_session(source: str | bytes, device: str = "cpu", threads: int = 1, library: Path | None = None) -> Any:
    """A session of onnxruntime that tells errors alone.

    Args:
        source: Path of a file, or its content.
        device: ``"cpu"`` or ``"cuda"``.
        threads: How many it may use on a CPU.
        library: With operators that the file needs.
    """
    need("running ONNX files", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if library is not None:
        options.register_custom_ops_library(str(library))
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(f"onnxruntime {onnxruntime.__version__} has no {provider}: pip install onnxruntime-gpu")
    return onnxruntime.InferenceSession(source, options, providers=[provider])


def open_openvino(path: Path, device: str = "cpu", threads: int = 1) -> Run:
    """Open a file of OpenVINO, computing in float32; the rest as in :func:`open_file`."""
    need(f"running {path}", "openvino")
    import openvino

    if device != "cpu":
        raise UserError(f"{path} runs on a CPU here, not on {device}")
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return _checked(lambda images: list(compiled(images).values()))


def open_pt2(path: Path, device: str = "cpu", threads: int = 1) -> Run:
    """Open a program of torch.export; the rest as in :func:`open_file`. Threads are those of this process."""
    return run_of_pt2(load_pt2(path).to(device), device)


def load_pt2(path: Path) -> torch.nn.Module:
    """Load a program of torch.export as a module."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # which nobody writes to
        return torch.export.load(path).module()


def run_of_pt2(program: torch.nn.Module, device: str = "cpu") -> Run:
    """A program of torch.export as a function."""
    import torch

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.cpu().numpy() for output in program(torch.from_numpy(images).to(device))]

    return _checked(run)


def _checked(run: Run) -> Run:
    """The same function, after a look at what it is given: each runtime ends in its own way on an empty batch."""

    def checked(images: np.ndarray) -> list[np.ndarray]:
        if images.ndim != 4 or 0 in images.shape:
            shape = " x ".join(map(str, images.shape))
            raise UserError(f"an exported file takes images (batch, 3, height, width), at least one, and got {shape}")
        return run(images)

    return checked


_OPENERS: dict[str, Callable[[Path, str, int], Run]] = {
    ".onnx": open_onnx,
    ".xml": open_openvino,
    ".pt2": open_pt2,
}
