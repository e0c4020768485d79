"""Every config out of a wheel: as a base by name it is the same as by its path, and its model builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
for _name in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(_name)

CODE = """
import copy, functools, sys
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

def read_shared_bases_once(filename, *args, **kwargs):
    # Which file a base is, and its scope, are mmengine's to find each time; what is in it is the same by any name.
    if "_base_" not in Path(filename).parts:
        return read(filename, *args, **kwargs)
    if filename not in known:
        known[filename] = read(filename, *args, **kwargs)
    return copy.deepcopy(known[filename])

Config._file2dict = staticmethod(read_shared_bases_once)
built = set()
done = 0
for path in sorted(configs.rglob("*.py")):
    name = path.relative_to(configs)
    if name.parts[0] == "_base_":
        continue
    Path("child.py").write_text(f"_base_ = 'eyetoy_mm::{name if done % 2 else name.with_suffix('')}'\\n")
    child = Config.fromfile("child.py")
    assert child.to_dict() == Config.fromfile(path).to_dict(), name
    if str(child.model) not in built:  # many differ in their data or schedule alone
        built.add(str(child.model))
        with DefaultScope.overwrite_default_scope(child.default_scope):
            build_on_meta(child.model)
    done += 1
print(done)
"""


@pytest.mark.slow
def test_every_config_builds_by_name_and_by_path_from_the_wheel(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "*.so", "work_dirs", "docs", "tests", "*.egg-info", "dist")
    )
    pip = [sys.executable, "-m", "pip"]
    no_compiler = os.environ | {"CC": "false", "CXX": "false"}  # kernels are optional, and not what this is about
    build = [*pip, "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, env=no_compiler, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(site)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    configs = [path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts]
    assert int(done.stdout.splitlines()[-1]) == len(configs)
