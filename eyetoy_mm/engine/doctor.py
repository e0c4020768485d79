"""What an installation and its machine can do, and the remedy for each thing that will go wrong.

Nothing here needs more than torch: it must run where something is missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from eyetoy_mm.engine.measuring import usable_cores
from eyetoy_mm.ops import BACKENDS, available_backends
from eyetoy_mm.ops.selection import VARIABLE, allowed
from eyetoy_mm.version import __version__

State = Literal["ok", "note", "problem"]

# Import name -> the distributions that bring it: releases first, then the maintained forks.
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "triton": ("triton", "pytorch-triton-rocm", "pytorch-triton-xpu"),
    "natten": ("natten",),
    "mmengine": ("mmengine", "mmengine-lite", "onedl-mmengine"),
    "mmcv": ("mmcv", "mmcv-lite", "mmcv-full", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
    "mmpretrain": ("mmpretrain", "onedl-mmpretrain"),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
_TOOLBOXES = ("mmdet", "mmseg", "mmpretrain")
# What the tests run with (requirements/constraints.txt), to the second number of the version.
TESTED = {
    **{"torch": "2.11", "torchvision": "0.26", "triton": "3.6", "natten": "0.21", "mmengine": "0.10"},
    **{"mmcv-lite": "2.1", "mmdet": "3.3", "mmsegmentation": "1.2", "mmpretrain": "1.2"},
}
TESTED_PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13))
_VARIABLES = re.compile(r"EYETOY_|OMP_|MKL_|KMP_|CUDA_VISIBLE|NCCL_|GLOO_|TORCH_|PYTORCH_|TRITON_|MASTER_|OPENCV_")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)
_GB = 1e9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to.
        name: What it is.
        found: What is there.
        state: Whether it is as it should be: ``problem`` will fail, ``note`` may surprise.
        remedy: What to do, where there is something.
    """

    section: str
    name: str
    found: str
    state: State = "ok"
    remedy: str = ""


def examine_installation(folder: Path) -> list[Check]:
    """Look at everything.

    Args:
        folder: Where the user works; the free disk is that of its disk.
    """
    return [
        *_check_system(),
        *_check_packages(),
        *_check_accelerators(),
        *_check_backends(),
        *_check_storage(folder),
        *_check_variables(),
    ]


def _check_system() -> Iterator[Check]:
    python = sys.version_info[:2]
    oldest, newest = (".".join(map(str, version)) for version in (TESTED_PYTHONS[0], TESTED_PYTHONS[-1]))
    tested = python in TESTED_PYTHONS
    yield Check(
        "system",
        "Python",
        f"{platform.python_version()} ({sys.executable})",
        "ok" if tested else "note",
        "" if tested else f"tested are {oldest} to {newest}",
    )
    yield Check("system", "platform", platform.platform())
    cores, usable = os.cpu_count() or 1, usable_cores()
    threads = torch.get_num_threads()
    yield Check("system", "processor", f"{usable} of {cores} cores, {torch.backends.cpu.get_cpu_capability()}")
    yield Check(
        "system",
        "threads of PyTorch",
        str(threads),
        "note" if threads > usable else "ok",
        f"more than there are cores for this process: OMP_NUM_THREADS={usable}" if threads > usable else "",
    )


def _check_packages() -> Iterator[Check]:
    location = Path(__file__).parents[1]
    yield Check("packages", "eyetoy-mm", f"{__version__} ({location})")
    for module, distributions in _DISTRIBUTIONS.items():
        yield from _check_package(module, distributions)
    installed = {name for names in _DISTRIBUTIONS.values() for name in names if _version(name)}
    forks = {name for name in installed if name.startswith("onedl-")}
    releases = {name for name in installed if name.startswith("mm")}
    if forks and releases:
        yield Check(
            "packages",
            "OpenMMLab",
            f"releases ({', '.join(sorted(releases))}) beside forks ({', '.join(sorted(forks))})",
            "problem",
            "they overwrite each other's files: keep one kind, in an environment of its own",
        )


def _check_package(module: str, distributions: tuple[str, ...]) -> Iterator[Check]:
    # An OpenCV "+headless" is the empty stand-in by which tools/bootstrap.py serves both names.
    versions = {name: it for name in distributions if (it := _version(name)) and not it.endswith("+headless")}
    if not versions:
        yield _missing(module)
        return
    if len(versions) > 1:
        several = " and ".join(f"{name} {version}" for name, version in versions.items())
        # OpenCV's, of one version, are near enough the same files.
        twice = module == "cv2" and len(set(versions.values())) == 1
        yield Check(
            "packages",
            module,
            f"{several}: each brings `{module}`",
            "note" if twice else "problem",
            f"pip uninstall -y {' '.join(versions)}, then pip install the one that you want",
        )
        return
    ((name, version),) = versions.items()
    try:
        importlib.import_module(module)
    except Exception as error:  # of any kind: a binary that does not fit, a name that a version lacks
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Check("packages", name, f"{version}, does not import: {reason}", "problem", f"pip install -U {name}")
        return
    refused = _out_of_range(name, version)
    if refused:
        yield Check("packages", name, version, "problem", f"pip install '{name}{refused}'")
    elif name in TESTED and version.split(".")[:2] != TESTED[name].split("."):
        yield Check("packages", name, version, "note", f"tested is {TESTED[name]}")
    else:
        yield Check("packages", name, version + _kind_of(module))


def _missing(module: str) -> Check:
    if module in ("mmengine", "mmcv", "cv2"):
        return Check("packages", module, "not installed", "problem", "pip install 'eyetoy-mm[lite]'")
    if module in _TOOLBOXES:
        return Check("packages", module, "not installed", "note", "for its models: pip install 'eyetoy-mm[lite]'")
    return Check("packages", module, "not installed")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _out_of_range(name: str, version: str) -> str:
    """The versions that our metadata ask for, if this is none of them."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # torch alone does not bring it
        return ""
    for line in importlib.metadata.requires("eyetoy-mm") or () if _version("eyetoy-mm") else ():
        requirement = Requirement(line)
        if requirement.name == name and not requirement.specifier.contains(version, prereleases=True):
            return str(requirement.specifier)
    return ""


def _kind_of(module: str) -> str:
    if module == "torch":
        kinds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
        builds = [f"{kind} {version}" for kind, version in kinds.items() if version]
        return f" ({', '.join(builds) or 'without CUDA'})"
    if module == "mmcv":
        spec = importlib.util.find_spec("mmcv._ext")
        ours = spec is None or "eyetoy_mm" in str(spec.origin or spec.loader)
        return " (operators: those of eyetoy_mm, in PyTorch)" if ours else " (compiled operators)"
    return ""


def _check_accelerators() -> Iterator[Check]:
    devices = list(_devices())
    if devices:
        yield from devices
        return
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
        built = torch.version.cuda
        yield Check(
            "accelerators",
            "NVIDIA",
            f"a driver is here, but PyTorch {torch.__version__} sees no device",
            "problem",
            f"the driver must be new enough for CUDA {built}, and CUDA_VISIBLE_DEVICES must not hide the device"
            if built
            else "this build of PyTorch is without CUDA: install the one for CUDA",
        )
    else:
        yield Check("accelerators", "none", "models run on the processor")


def _devices() -> Iterator[Check]:
    if torch.cuda.is_available():
        compiled = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found = f"{device.name}, {device.total_memory / _GB:.0f} GB"
            if torch.version.hip is None:
                number = f"{device.major}{device.minor}"
                found += f", compute capability {device.major}.{device.minor}"
                # Binaries run within a major number; PTX ("compute_") on everything newer.
                fits = any(re.match(rf"sm_{device.major}\d\b", arch) for arch in compiled) or any(
                    arch.startswith("compute_") and int(re.sub(r"\D", "", arch)) <= int(number) for arch in compiled
                )
                if not fits:
                    remedy = f"this build of PyTorch is for {' '.join(compiled)}: install one for this device"
                    yield Check("accelerators", f"cuda:{index}", found, "problem", remedy)
                    continue
            yield Check("accelerators", f"cuda:{index}", found)
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            yield Check("accelerators", f"xpu:{index}", torch.xpu.get_device_name(index))
    if torch.backends.mps.is_available():
        yield Check("accelerators", "mps", "Apple GPU")


def _check_backends() -> Iterator[Check]:
    """Which back end runs the models' attention: float32, window 7, with and without a bias."""
    order = allowed(BACKENDS)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    for device in ("cpu", *([str(accelerator)] if accelerator is not None else [])):
        query = torch.zeros(1, 16, 16, 2, 32, device=device)
        reasons = available_backends(query, 7)
        biased = available_backends(query, 7, bias=torch.zeros(2, 13, 13, device=device))
        chosen = next((name for name in order if name in reasons and reasons[name] is None), None)
        for name, reason in reasons.items():
            if reason is not None:
                found = f"does not run: {reason}"
            else:
                found = "chosen" if name == chosen else "runs, by name"
                found += f"; not with a bias: {biased[name]}" if biased[name] else ""
            # On a processor the compiled kernels are what is fast.
            slow = device == "cpu" and name == "cpp" and reason is not None
            yield Check(f"back ends on {device}", name, found, "note" if slow else "ok", _compiler() if slow else "")
        if chosen is None or not set(order) <= set(BACKENDS):
            found = f"names {', '.join(order)}: " + ("none of them runs" if chosen is None else "not all are back ends")
            remedy = f"set it to some of {', '.join(BACKENDS)}, or not at all: attention ends in an error"
            state: State = "problem" if device == str(accelerator or "cpu") else "note"  # models run on the accelerator
            yield Check(f"back ends on {device}", VARIABLE, found, state, remedy)


def _compiler() -> str:
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    return f"a compiler is here ({found}): install eyetoy-mm again" if found else "install g++ or clang++ first"


def _check_storage(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free / _GB
    full = free < 2
    yield Check(
        "storage",
        "disk",
        f"{free:.1f} GB free in {folder}",
        "note" if full else "ok",
        "a detector's checkpoint with its optimizer takes 0.5 GB: make room, or --work-dir elsewhere" if full else "",
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total / _GB
        small = size < 1
        yield Check(
            "storage",
            "shared memory",
            f"{size:.2f} GB in {shared}",
            "problem" if small else "ok",
            "loader workers pass batches through it: docker run --shm-size=8g, or train_dataloader.num_workers=0"
            if small
            else "",
        )
    if sys.platform != "win32":
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = files < 1024
        remedy = f"ulimit -n {min(most, 65536) if most > 0 else 65536}: each worker holds some" if few else ""
        yield Check("storage", "open files", f"{files} at most", "note" if few else "ok", remedy)


def _check_variables() -> Iterator[Check]:
    for name, value in sorted(os.environ.items()):
        if _VARIABLES.match(name):
            yield Check("environment", name, "(set)" if _SECRET.search(name) else value)
