"""Configs of this package by name, `eyetoy_mm::...`, in every kind of installation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("mmengine")

from mmengine.config import Config  # noqa: E402
from mmengine.utils import get_installed_path  # noqa: E402

import eyetoy_mm  # noqa: E402, F401


@pytest.mark.parametrize("first", ["eyetoy_mm", "mmengine.config, mmengine.hub, eyetoy_mm"])
def test_configs_of_this_package_by_name(run_python: Callable[..., str], tmp_path: Path, first: str) -> None:
    pytest.importorskip("mmdet")
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'eyetoy_mm::_base_/models/mask-rcnn_eyetoy.py'\n")
    code = (
        f"import {first}\n"
        "from mmengine.config import Config\n"
        "from mmengine.hub import get_config\n"
        f"print(Config.fromfile({str(config)!r}).model.backbone.type)\n"
        "print(get_config('eyetoy_mm::eyetoy/mask-rcnn_eyetoy-s_fpn_1x_coco.py').model.backbone.arch.type)\n"
        "from mmengine.utils import get_installed_path\n"
        "print(get_installed_path('eyetoy_mm'))\n"
    )
    backbone, arch, path = run_python(code).split()
    assert (backbone, arch) == ("eyetoy_mm.EyeToy", "small")
    assert (Path(path) / "registry.py").is_file()


def test_what_is_not_installed_stays_an_error() -> None:
    with pytest.raises(Exception, match="no_such_package"):
        get_installed_path("no_such_package")


def test_bases_of_a_fork_whose_distribution_has_another_name(run_python: Callable[..., str], tmp_path: Path) -> None:
    # mmengine's list says that mmaction is in the distribution mmaction2, which is not installed here.
    configs = tmp_path / "mmaction" / ".mim" / "configs" / "_base_"
    configs.mkdir(parents=True)
    (tmp_path / "mmaction" / "__init__.py").touch()
    (tmp_path / "mmaction" / ".mim" / "model-index.yml").write_text("Import: []\n")
    (configs / "schedule.py").write_text("epochs = 7\n")
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'mmaction::_base_/schedule.py'\n")
    code = f"import eyetoy_mm\nfrom mmengine.config import Config\nprint(Config.fromfile({str(config)!r}).epochs)\n"
    assert run_python(code, tmp_path).strip() == "7"


def test_a_base_of_a_toolbox_is_found_without_its_metafiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mmdet = pytest.importorskip("mmdet")
    monkeypatch.setattr("mmengine.config.utils.load", None)  # what reads them
    for base in ("_base_/default_runtime.py", "dino/dino-4scale_r50_8xb2-12e_coco.py"):
        path, scope = Config._get_cfg_path(f"mmdet::{base}", str(tmp_path))
        assert (Path(path), scope) == (Path(mmdet.__file__).parent / ".mim/configs" / base, "mmdet")


def test_configs_of_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    """There is no ``.mim``, which installing makes, and the configs lie beside the package."""
    from mmengine.config import utils

    (tmp_path / "eyetoy_mm").mkdir()
    config = tmp_path / "configs/eyetoy/a.py"
    config.parent.mkdir(parents=True)
    config.touch()
    assert utils._get_external_cfg_path(str(tmp_path / "eyetoy_mm"), "eyetoy/a.py") == str(config)
