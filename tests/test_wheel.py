"""The wheel: the same bytes each time it is built, and every config in it is the same by its name and by its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("eyetoy_mm", "configs", "tools", "data/sample", "data/nuclei", "weights", "setup.py", "pyproject.toml")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build(folder: Path, mask: int) -> Path:
    """Build the wheel of a copy of the sources, whose files have the modes of ``mask``, and dates of their own."""
    source, wheels = folder / "source", folder / "wheels"
    source.mkdir(parents=True)
    for item in (*PARTS, "model-index.yml"):
        if (ROOT / item).is_dir():
            shutil.copytree(ROOT / item, source / item, ignore=shutil.ignore_patterns(".mim", "__pycache__", "*.so"))
        else:
            shutil.copyfile(ROOT / item, source / item)
    for path in source.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        os.utime(path, (1_600_000_000 + mask, 1_600_000_000 + mask))
    command = [*PIP, "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, source]
    environment = {**os.environ, "CC": "false", "CXX": "false"}  # kernels are optional, and take a minute
    environment.pop("SOURCE_DATE_EPOCH", None)
    previous = os.umask(mask)
    try:
        subprocess.run(command, check=True, capture_output=True, env=environment)
    finally:
        os.umask(previous)
    (wheel,) = wheels.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("first"), 0o022)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are those of POSIX")
def test_the_wheel_is_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    """From another folder, at another time, with other modes."""
    assert build(tmp_path, 0o077).read_bytes() == wheel.read_bytes()


CODE = """
import copy, functools, re, sys
from pathlib import Path

import eyetoy_mm
from eyetoy_mm.engine.skeletons import build_on_meta
from mmengine.config import Config, config, utils
from mmengine.registry import DefaultScope

assert Path(eyetoy_mm.__file__).is_relative_to(sys.argv[1]), eyetoy_mm.__file__
# What mmengine asks again for each base: the metafiles of its package, and whether that is installed.
utils.load = functools.cache(utils.load)
config.is_installed = functools.cache(config.is_installed)
configs = Path(eyetoy_mm.__file__).parent / ".mim" / "configs"

read, known = Config._file2dict, {}

def read_once(filename, *args, **kwargs):
    # Which file a base is, and its scope, are mmengine's to find each time; what is in it is the same by any name.
    if not Path(filename).is_relative_to(configs):
        return read(filename, *args, **kwargs)
    key = str((filename, args, kwargs))
    if key not in known:
        known[key] = read(filename, *args, **kwargs)
    return copy.deepcopy(known[key])

Config._file2dict = staticmethod(read_once)
built = set()
done = 0
for path in sorted(configs.rglob("*.py")):
    name = path.relative_to(configs)
    if name.parts[0] == "_base_":
        continue
    Path("child.py").write_text(f"_base_ = 'eyetoy_mm::{name if done % 2 else name.with_suffix('')}'\\n")
    child = Config.fromfile("child.py")
    assert child.to_dict() == Config.fromfile(path).to_dict(), name
    # What a wheel may lack is a module: each is built once here, and each model by test_configs.py.
    parts = set(re.findall(r"'type': '([^']+)'", str(child.model)))
    if parts - built:
        built |= parts
        with DefaultScope.overwrite_default_scope(child.default_scope):
            build_on_meta(child.model)
    done += 1
print(done)
"""


@pytest.mark.slow
def test_every_config_builds_by_name_and_by_path_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    for name in ("mmdet", "mmseg", "mmpretrain"):
        pytest.importorskip(name)
    site = tmp_path / "site"
    install = [*PIP, "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel]
    subprocess.run(install, check=True)
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(site)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    configs = [path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts]
    assert int(done.stdout.splitlines()[-1]) == len(configs)
