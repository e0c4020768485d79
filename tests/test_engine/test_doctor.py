"""An installation's examination: what is there is told, what will go wrong has a remedy."""

import importlib
import os
import re
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from eyetoy_mm.engine import doctor
from eyetoy_mm.engine.doctor import TESTED, examine_installation
from eyetoy_mm.ops import use_backend
from eyetoy_mm.ops.selection import VARIABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution, and its module if there is a source, into an environment without the others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = {}
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: version(name) if name in versions else None)

    def install(name, number, module="", source=None):
        versions[name] = number
        folder = tmp_path / f"{name.replace('-', '_')}-{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source)
        importlib.invalidate_caches()

    return install


def found(name):
    return next(check for check in examine_installation(Path.cwd()) if check.name == name)


def test_every_remedy_belongs_to_something_and_this_machine_has_its_back_ends():
    checks = examine_installation(Path.cwd())
    assert all(bool(check.remedy) or check.state == "ok" for check in checks)
    assert len({check.section for check in checks}) >= 5
    chosen = [
        check.name for check in checks if check.section == "back ends on cpu" and check.found.startswith("chosen")
    ]
    assert len(chosen) == 1 and {"torch", "reference", "flex", "cpp", "natten"} <= {check.name for check in checks}


@pytest.mark.parametrize(
    ("names", "chosen", "problem"),
    [
        (("reference", "torch"), ["reference"], ""),
        (("natten",), [], "names natten: none of them runs"),
        (("torch", "torhc"), ["torch"], "names torch, torhc: not all are back ends"),
    ],
)
def test_the_back_ends_that_a_program_is_told_to_take(names, chosen, problem):
    """By use_backend here, by EYETOY_BACKEND in the program; it was said that the first that runs is chosen."""
    with use_backend(*names):
        checks = [check for check in examine_installation(Path.cwd()) if check.section == "back ends on cpu"]
    assert [check.name for check in checks if check.found.startswith("chosen")] == chosen
    assert [check.found for check in checks if check.name == VARIABLE] == [problem] * bool(problem)


def test_tested_versions_are_those_of_the_constraints():
    pinned = dict(
        re.findall(r"^([\w-]+)==(\d+\.\d+)", (ROOT / "requirements/constraints.txt").read_text(), re.MULTILINE)
    )
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_two_distributions_of_one_package(installed):
    installed("mmcv", "2.1.0")
    installed("mmcv-lite", "2.1.0")
    check = found("mmcv")
    assert check.state == "problem" and "mmcv 2.1.0 and mmcv-lite 2.1.0" in check.found
    assert check.remedy.startswith("pip uninstall -y mmcv mmcv-lite")


def test_forks_beside_releases(installed):
    installed("onedl-mmengine", "0.10.12")
    installed("mmdet", "3.3.0")
    assert found("OpenMMLab").state == "problem" and "onedl-mmengine" in found("OpenMMLab").found


def test_what_does_not_import(installed, monkeypatch):
    monkeypatch.delitem(sys.modules, "natten", raising=False)
    installed("natten", "0.21.7", "natten", "raise OSError('libnatten.so: undefined symbol')")
    check = found("natten")
    assert (
        check.state == "problem" and check.found == "0.21.7, does not import: OSError: libnatten.so: undefined symbol"
    )


def test_what_is_missing(installed):
    assert found("mmengine").state == "problem" and "pip install" in found("mmengine").remedy
    assert found("mmdet").state == "note" and found("natten").state == "ok"


def test_small_shared_memory_and_a_full_disk(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64e6, 0, 64e6))
    assert found("disk").state == "note" and "0.1 GB" in found("disk").found
    if Path("/dev/shm").is_dir():
        assert found("shared memory").state == "problem" and "--shm-size" in found("shared memory").remedy


def test_the_environment_is_told_without_its_secrets(monkeypatch):
    monkeypatch.setenv("EYETOY_BACKEND", "torch")
    monkeypatch.setenv("TORCH_HUB_TOKEN", "abc")
    assert found("EYETOY_BACKEND").found == "torch" and found("TORCH_HUB_TOKEN").found == "(set)"


def test_more_threads_than_cores():
    threads = torch.get_num_threads()
    torch.set_num_threads(4 * (os.cpu_count() or 1))
    try:
        assert found("threads of PyTorch").state == "note" and "OMP_NUM_THREADS" in found("threads of PyTorch").remedy
    finally:
        torch.set_num_threads(threads)
