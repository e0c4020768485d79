"""Configs put together without running them come out as mmengine has them, or are refused with file and line."""

import random
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config

from benchmarks.trust.hostile import code, has_run
from eyetoy_mm.engine.plain_config import read_plain
from eyetoy_mm.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
LEAVES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


@pytest.mark.parametrize("path", random.Random(0).sample(LEAVES, 4), ids=lambda path: path.stem)
def test_our_configs(path: Path) -> None:
    assert read_plain(path)._cfg_dict.to_dict() == Config.fromfile(path)._cfg_dict.to_dict()


def test_forms_of_inheritance(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(
        "a = dict(x=1, y=dict(z=2))\nsteps = [dict(type='A'), dict(type='B')]\nkept = 1\n"
    )
    (tmp_path / "other.json").write_text('{"c": {"d": [1, 2]}}')
    (tmp_path / "child.py").write_text(
        "'''A child.'''\n_base_ = ['base.py', './other.json']\na = dict(y=dict(_delete_=True, w=3))\n"
        "copied = {{_base_.a.y}}\nalso = _base_.c.d\n__hidden = 5\nalias = a\nsteps = [dict(n=__hidden)]\n"
    )
    (tmp_path / "leaf.yaml").write_text("_base_: child.py\na: {x: 7}\n")
    for name in ("child.py", "leaf.yaml"):
        expected = Config.fromfile(tmp_path / name)._cfg_dict.to_dict()
        assert read_plain(tmp_path / name)._cfg_dict.to_dict() == expected
    assert expected["a"] == dict(x=7, y=dict(w=3)) and "__hidden" not in expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\n{code}", r"config.py, line 2: `open\(.* is no plain value .*--run does"),
        ("_base_ = {code}", r"config.py, line 1: `open\(.* is no name of a base"),
        ("a = '{{{{ fileDirname }}}}'", r"line 1: `{{ fileDirname }}` is put in by mmengine"),
        ("a = {{{{$HOME:1}}}}", r"line 1: `{{\$HOME:1}}` is put in"),
        ("_base_ = 'config.py'", "is a base of itself"),
        ("_base_ = './x/../config.py'", "is a base of itself"),
        ("_base_ = 'none.py'", "has the base .*none.py, which is not there"),
        ("_base_ = ['harmless.py', 'harmless2.py']", "several bases with a"),
        ("_base_ = 'harmless.py'\na = dict(x=1)", "cannot inherit"),
        ("_base_ = 'hostile.py'", r"hostile.py, line 1: `open\("),
        ("with read_base():\n    from .harmless import *", "line 1: `with read_base"),
    ],
)
def test_refused_with_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "harmless.py").write_text("a = [1]")
    (tmp_path / "harmless2.py").write_text("a = [1]")
    (tmp_path / "hostile.py").write_text(code(tmp_path))
    (tmp_path / "config.py").write_text(text.format(code=code(tmp_path)))
    with pytest.raises(UserError, match=message):
        read_plain(tmp_path / "config.py")
    assert not has_run(tmp_path)


def test_a_name_that_is_code(tmp_path: Path) -> None:
    """mmengine puts the file's name into its text before it parses it."""
    path = tmp_path / "x'; open('ran', 'w').close(); y='.py"
    path.write_text("a = '{{ fileBasename }}'")
    with pytest.raises(UserError, match="is put in by mmengine"):
        read_plain(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1, 2]", b"{", b"[" * 100_000])
def test_data_that_are_no_config(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"(cannot read the config .*config.json|config.json holds list)"):
        read_plain(tmp_path / "config.json")
