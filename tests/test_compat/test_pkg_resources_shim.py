"""pkg_resources for mmengine, where setuptools no longer has it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from eyetoy_mm.compat import pkg_resources_shim
from tests.test_compat.test_activate import HIDE

pytest.importorskip("mmengine")


def test_base_config_of_another_package_resolves(run_python: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'mmseg::_base_/models/upernet_swin.py'\n")
    code = HIDE.format(names=("pkg_resources",)) + (
        "import eyetoy_mm, os, pytest\n"
        "from mmengine.config import Config\n"
        "from mmengine.utils import get_installed_path, is_installed\n"
        f"print(Config.fromfile({str(config)!r}).model.decode_head.type)\n"
        "print(os.path.basename(get_installed_path('mmengine')), os.path.isdir(get_installed_path('mmdet')))\n"
        "print(is_installed('mmsegmentation'), is_installed('mmseg'), is_installed('no_such_package'))\n"
        "from mmengine.utils.package_utils import package2module\n"
        "print(package2module('mmsegmentation'))\n"
        "with pytest.raises(Exception, match='no_such_package'):\n"
        "    get_installed_path('no_such_package')\n"
        "import pkg_resources\n"
        "print(pkg_resources.__file__, pkg_resources.get_distribution('mmengine').version)\n"
        "with pytest.raises(AttributeError, match='setuptools<82'):\n"
        "    pkg_resources.parse_requirements\n"
        "assert not hasattr(pkg_resources, '__path__')\n"
    )
    lines = run_python(code).splitlines()
    assert lines[0] == "UPerHead"
    assert lines[1] == "mmengine True"
    assert lines[2] == "True True False"
    assert lines[3] == "mmseg"
    assert "_pkg_resources.py" in lines[4]


def test_a_present_pkg_resources_is_left_alone(run_python: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "pkg_resources.py").write_text("real = True\n")
    assert run_python("import eyetoy_mm, pkg_resources; print(pkg_resources.real)", tmp_path).strip() == "True"


def test_needed_is_whether_it_is_installed() -> None:
    assert pkg_resources_shim.needed() == (PathFinder.find_spec("pkg_resources") is None)


def test_namespace_packages_that_ask_for_it_still_work(run_python: Callable[..., str], tmp_path: Path) -> None:
    for part in ("first", "second"):
        package = tmp_path / part / "old_namespace"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "try:\n    __import__('pkg_resources').declare_namespace(__name__)\nexcept ImportError:\n    pass\n"
        )
        (package / f"{part}.py").write_text("")
    code = HIDE.format(names=("pkg_resources",)) + (
        "import eyetoy_mm, old_namespace.first, old_namespace.second; print('imported')"
    )
    assert run_python(code, tmp_path / "first", tmp_path / "second").strip() == "imported"


def test_its_warning_is_not_shown_for_every_base(run_python: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    pytest.importorskip("pkg_resources")
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'mmseg::_base_/models/upernet_swin.py'\n")
    code = (
        "import sys\nsys.stderr = sys.stdout\n"
        f"import eyetoy_mm\nfrom mmengine.config import Config\nConfig.fromfile({str(config)!r})"
    )
    assert "pkg_resources" not in run_python(code)
