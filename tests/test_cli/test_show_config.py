"""``eyetoy show-config``: prints what a run would get, and runs nothing unless it is told to."""

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.config import config as config_module
from yapf.yapflib.yapf_api import FormatCode

from benchmarks.trust.hostile import code, has_run
from eyetoy_mm.cli import main


@pytest.fixture(autouse=True)
def _laid_out(monkeypatch) -> None:
    """As users see it: other tests leave yapf out, which takes its time (conftest.py)."""
    monkeypatch.setattr(config_module, "FormatCode", FormatCode)


def test_it_prints_the_whole_config_with_the_options(capsys, tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("a = dict(x=1)\nb = (1, 2)\n")
    (tmp_path / "child.py").write_text("_base_ = 'base.py'\na = dict(y='z')\n")
    main(["show-config", str(tmp_path / "child.py"), "--cfg-options", "a.x=5", "c=0.5"])
    printed = Config.fromstring(capsys.readouterr().out, ".py")
    assert printed._cfg_dict == dict(a=dict(x=5, y="z"), b=(1, 2), c=0.5)


def test_it_runs_what_is_more_than_plain_values_only_if_told(capsys, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(f"a = 1\n{code(tmp_path)}\n")
    with pytest.raises(SystemExit, match=r"^error: .*config.py, line 2: `open\("):
        main(["show-config", str(tmp_path / "config.py")])
    assert not has_run(tmp_path)
    main(["show-config", str(tmp_path / "config.py"), "--run"])
    assert has_run(tmp_path) and capsys.readouterr().out == "a = 1\n\n"


def test_names_of_packages_and_missing_files(capsys) -> None:
    main(["show-config", "eyetoy_mm::upernet_eyetoy_ade20k"])
    assert "type='EncoderDecoder'" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no config file none.py"):
        main(["show-config", "none.py"])
