"""The house: imports point down only, and only some rooms know mm packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eyetoy_mm

PACKAGE = Path(eyetoy_mm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a part may import itself and what stands before it. compat stands apart: only errors are taken
# from it; zoo, files by name, is what it tells the toolboxes of, and whole_files what it writes checkpoints with.
ORDER = [
    *("version", "zoo", "whole_files", "compat", "errors", "paths", "tables", "ops", "params", "layers", "archs"),
    *("state_dicts", "encoder", "attention_maps", "registry", "backbones", "timm"),
    *("datasets", "engine", "export", "cli"),
]
MM_PACKAGES = {"mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain"}
MM_ROOMS = {"backbones", "engine", "datasets", "compat", "registry", "export", "cli"}
OPTIONAL = sorted(MM_PACKAGES | {"torchvision", "natten", "triton", "numpy", "cv2", "matplotlib"})


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names.update(arg.value for arg in node.args if isinstance(arg, ast.Constant))
    return names


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file):
    here = room(file)
    if here == "__init__":
        return
    for name in imports(file):
        if name.startswith("eyetoy_mm."):
            there = name.split(".")[1]
            assert ORDER.index(there) <= ORDER.index(here), f"{file} imports {name}, which is above it"
            if here == "ops":
                assert there == "ops", f"{file}: ops take tensors, ints and tuples, never {name}"
            if here == "params":
                pytest.fail(f"params imports nothing of ours, but it imports {name}")
        elif name.split(".")[0] in MM_PACKAGES:
            assert here in MM_ROOMS, f"{file} imports {name}; only {sorted(MM_ROOMS)} may"


def test_one_file_imports_natten():
    assert [file.name for file in FILES if any(n.split(".")[0] == "natten" for n in imports(file))] == [
        "backend_natten.py"
    ]


def test_one_file_imports_triton():
    """It is missing where PyTorch has no GPU in mind, and takes a second to import."""
    with_triton = [file.name for file in FILES if any(n.split(".")[0] == "triton" for n in imports(file))]
    assert with_triton == ["triton_kernels.py"]


def needs_torch_alone(file: Path) -> bool:
    """Everything outside the rooms that know mm packages; in them, what holds data structures and text alone."""
    if file.stem == "triton_kernels" or room(file) == "timm":  # they need what they are named after
        return False
    return room(file) not in MM_ROOMS - {"cli"} or file.relative_to(PACKAGE).as_posix() == "datasets/splits.py"


TORCH_ALONE = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in FILES
    if needs_torch_alone(file) and file.stem != "__main__"
]


def run_without(blocked: list[str], code: str) -> None:
    code = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n{code}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_these_import_torch_alone():
    assert {"eyetoy_mm.errors", "eyetoy_mm.tables", "eyetoy_mm.attention_maps"} <= set(TORCH_ALONE)
    run_without(OPTIONAL, "\n".join(f"import {name}" for name in TORCH_ALONE))


def test_these_import_not_even_torch():
    run_without(
        [*OPTIONAL, "torch"],
        "import eyetoy_mm.errors, eyetoy_mm.paths, eyetoy_mm.tables, eyetoy_mm.datasets.splits, eyetoy_mm.cli\n"
        "import eyetoy_mm.whole_files",
    )


def test_encoder_needs_torch_alone():
    code = """
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.params import DEFAULT_IMG_ENCODER_PARAMS
assert Encoder2D(**DEFAULT_IMG_ENCODER_PARAMS.__dict__).d_model == 1024
try:
    import eyetoy_mm.backbones
except ModuleNotFoundError as error:
    assert "eyetoy-mm[lite]" in str(error), error
else:
    raise AssertionError("backbones imported without mmengine")
"""
    run_without(OPTIONAL, code)
