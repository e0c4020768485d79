"""Package metadata, and the build steps: configs and tools into the wheel, and compiled kernels where they can be."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"

# What goes into `eyetoy_mm/.mim`, if present. What makes a checkout is no use once installed.
MIM_ITEMS = ("configs", "tools", "data/sample", "data/nuclei", "weights", "model-index.yml")
MIM_IGNORE = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*", "bootstrap.py", "make_sample.py")

# The OpenMMLab packages and what they import without declaring it. mmdet and mmsegmentation refuse mmcv >= 2.2;
# mmengine reads `mmdet::...` config paths through pkg_resources, which setuptools 82 dropped; mmsegmentation imports
# ftfy and regex; mmpretrain imports torchvision.
OPENMMLAB = [
    "mmengine>=0.10.5,<1.0",
    "mmdet>=3.3.0,<4.0",
    "mmsegmentation>=1.2.2,<2.0",
    "mmpretrain>=1.2.0,<2.0",
    "torchvision",
    "safetensors",
    "setuptools<82",
    "ftfy",
    "regex",
]

ONNX = ["onnx", "onnxruntime", "onnxscript"]  # for `eyetoy export`


def version() -> str:
    """Read ``__version__`` without importing the package, which would need torch."""
    source = (ROOT / "eyetoy_mm" / "version.py").read_text(encoding="utf-8")
    match = re.search(r"""^__version__ = ['"]([^'"]+)['"]""", source, re.MULTILINE)
    if match is None:
        raise RuntimeError('eyetoy_mm/version.py holds no line __version__ = "..."')
    return match.group(1)


class BuildPy(build_py):
    """Adds ``eyetoy_mm/.mim``, where MIM, the inferencers and ``eyetoy_mm::...`` paths look for configs and tools.

    A wheel gets copies, made in the build folder and not among the sources. An editable install gets links, so that an
    edited config is the config that is used.
    """

    def run(self) -> None:
        """Build the modules, then add the folder."""
        super().run()
        editable = bool(getattr(self, "editable_mode", False))
        mim = (ROOT if editable else Path(self.build_lib)) / "eyetoy_mm" / ".mim"
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for item in MIM_ITEMS:
            source = ROOT / item
            target = mim / item
            target.parent.mkdir(parents=True, exist_ok=True)
            if editable:
                with contextlib.suppress(OSError):  # Windows may not allow links
                    target.symlink_to(os.path.relpath(source, target.parent), target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(source, target, ignore=MIM_IGNORE)
            elif source.is_file():
                shutil.copy2(source, target)


class BuildExt(build_ext):
    """Plain libraries that any Python loads with ctypes; hence no tag of this Python in their names."""

    def get_ext_filename(self, fullname: str) -> str:
        """Path of a library below the package."""
        return os.path.join(*fullname.split(".")) + ".so"


class BdistWheel(bdist_wheel):
    """The same bytes from the same sources: modes and dates of files are those of the machine, and no content."""

    def write_wheelfile(self, *args, **kwargs) -> None:
        """Write the last file before all are packed."""
        super().write_wheelfile(*args, **kwargs)
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)


def kernels() -> list[Extension]:
    """The kernels of ``ops/backend_cpp.py``, once per instruction set; left out where there is no compiler."""
    if sys.platform == "win32":
        return []  # its compiler has no vector types
    flags = {"baseline": []}
    if platform.machine().lower() in ("x86_64", "amd64"):
        flags["avx2"] = ["-mavx2", "-mfma"]
        flags["avx512"] = [*flags["avx2"], "-mavx512f", "-mavx512dq", "-mavx512vl"]
    common = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fvisibility=hidden", "-pthread"]
    folder = "eyetoy_mm/ops/cpp"
    return [
        Extension(
            f"eyetoy_mm.ops.cpp.{name}",
            sources=[f"{folder}/{name}.cpp"],
            depends=[f"{folder}/{header}.h" for header in ("repeats", "cells", "neighborhood", "interface")],
            extra_compile_args=common + instruction_flags,
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
        for name, instruction_flags in flags.items()
    ]


def build_folder() -> str:
    """A folder outside the sources: what a `build/` left behind would end up in the next wheel."""
    folder = tempfile.mkdtemp(prefix="eyetoy_mm-build-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")  # the first date that a zip file can have

setup(
    name="eyetoy-mm",
    version=version(),
    description="EyeToy vision backbone (multi-scale neighborhood attention) for OpenMMLab",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="EyeToy-MM authors",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords="vision backbone, neighborhood attention, object detection, segmentation, openmmlab",
    packages=find_packages(include=["eyetoy_mm", "eyetoy_mm.*"]),
    # `eyetoy export --kernels eyetoy` compiles the operator of onnxruntime where its headers are.
    package_data={"eyetoy_mm": ["py.typed", "ops/cpp/onnxruntime.cpp", "ops/cpp/interface.h"]},
    python_requires=">=3.10",
    # The model needs torch alone (2.7: torch.compiler.is_exporting), and numpy nowhere. Everything else is an extra on
    # purpose: a requirement on mmcv-lite, or on the OpenMMLab packages by these names, would be installed over a
    # compiled mmcv or over a fork that has the same import names.
    install_requires=["torch>=2.7"],
    extras_require={
        # OpenMMLab without a compiler. Not where mmcv is installed: mmcv-lite would overwrite it.
        "lite": [*OPENMMLAB, "mmcv-lite>=2.0.0rc4,<2.2.0"],
        # OpenMMLab with the compiled mmcv; one that is there already is kept. Its build imports torch and
        # pkg_resources, and in isolation gets a setuptools without the latter: after `pip install torch torchvision
        # 'setuptools<82' wheel`, `pip install --no-build-isolation "eyetoy-mm[full]"`.
        "full": [*OPENMMLAB, "mmcv>=2.0.0rc4,<2.2.0"],
        # Fused kernels, where they can be compiled. Its build imports torch: install that first, then
        # `pip install --no-build-isolation "eyetoy-mm[natten]"`. Without it our own PyTorch path runs.
        "natten": ["natten>=0.20"],
        # Large TIFFs in windows (`eyetoy infer --tile`), and completion in shells.
        "tiff": ["tifffile", "imagecodecs"],
        "completion": ["argcomplete"],
        # Weights as timm and Hugging Face have them; `eyetoy_mm.timm` needs nothing else.
        "hub": ["safetensors", "timm", "huggingface_hub"],
        # `eyetoy export --out model.xml`, by way of the ONNX graph.
        "openvino": [*ONNX, "openvino"],
        # The page of `eyetoy app`.
        "demo": ["gradio>=6"],
        # The site of `make docs`.
        "docs": ["mkdocs-material", "mkdocstrings[python]", "latex2mathml"],
        # What export is tested with has no wheels for Python 3.10.
        "dev": [
            *("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "mypy", "pre-commit"),
            *("timm", "huggingface_hub", "argcomplete"),
            *(f"{name}; python_version >= '3.11'" for name in ("tifffile", "imagecodecs")),
            *(f"{name}; python_version >= '3.11'" for name in ONNX),
        ],
    },
    entry_points={"console_scripts": ["eyetoy = eyetoy_mm.cli:main"]},
    ext_modules=kernels(),
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt, "bdist_wheel": BdistWheel},
    options={"build": {"build_base": build_folder()}},
    zip_safe=False,
)
