"""`eyetoy tool`: the toolboxes' own tools, in this process and beside mmcv-lite; docs/toolbox-tools.md has them all."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from eyetoy_mm.cli.tool import _MENDS, find_tool, source_of, tools_of
from eyetoy_mm.errors import UserError
from tests import program

ROOT = Path(__file__).parents[2]
SEG = "eyetoy_mm::sample/upernet_eyetoy-demo_sample"


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return program.run("eyetoy_mm/cli/__main__.py", "tool", *arguments)


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, text in {
        "train": "1",
        "a/show": "1",
        "b/show": "2",
        "a/same": "1",
        "b/same": "1",
        "a/b/train": "2",
    }.items():
        found[name] = tmp_path / f"{name}.py"
        found[name].parent.mkdir(parents=True, exist_ok=True)
        found[name].write_text(text)
    return found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train", "train"),
        ("train.py", "train"),
        ("a/show", "a/show"),
        ("same", "a/same"),
        ("a/b/train.py", "a/b/train"),
    ],
)
def test_a_tool_is_found_by_name_or_path(tools: dict[str, Path], name: str, found: str) -> None:
    assert find_tool(tools, "mmx", name) == found


def test_what_cannot_be_found_is_said(tools: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="several tools 'show': name one of a/show, b/show"):
        find_tool(tools, "mmx", "show")
    with pytest.raises(UserError, match="mmx has no tool 'nope'; it has train"):
        find_tool(tools, "mmx", "nope")
    with pytest.raises(UserError, match="no_such_package is not an installed package"):
        tools_of("no_such_package")
    with pytest.raises(UserError, match="yaml comes without tools"):
        tools_of("yaml")


def test_mmseg_counts_flops_of_a_config_by_name() -> None:
    pytest.importorskip("mmseg")
    done = tool("mmseg", "get_flops", SEG, "--shape", 64)
    assert done.returncode == 0, done.stderr
    assert "Input shape: (64, 64)" in done.stdout and "Params: 1.969M" in done.stdout


def test_mmseg_shows_its_data(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    options = ["--output-dir", tmp_path, "--not-show", "--cfg-options", "train_dataloader.dataset.indices=2"]
    done = tool("mmseg", "analysis_tools/browse_dataset", SEG, *options)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_mmdet_prints_its_help() -> None:
    pytest.importorskip("mmdet")
    done = tool("mmdet", "test", "--help")
    assert done.returncode == 0 and "test.py" in done.stdout and "--tta" in done.stdout


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_mmseg_counts_confusions(tmp_path: Path, reduce_zero_label: bool) -> None:
    """Of classes that the config names, labels whose products do not fit into 8 bits, and masks that start at 1."""
    pytest.importorskip("mmseg")
    from mmseg.datasets import BaseSegDataset

    name, classes = "analysis_tools/confusion_matrix", 20
    confusion_matrix = ModuleType("confusion_matrix")
    exec(source_of("mmseg", name, tools_of("mmseg")[name]), vars(confusion_matrix))
    generator = np.random.default_rng(0)
    truth, found = (generator.integers(0, classes, (2, 9, 11), dtype=np.uint8) for _ in range(2))
    for index in range(2):
        Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(tmp_path / f"{index}.jpg")
        Image.fromarray(truth[index] + reduce_zero_label).save(tmp_path / f"{index}.png")
    dataset = BaseSegDataset(
        metainfo=dict(classes=[str(index) for index in range(classes)], palette=[[0, 0, 0]] * classes),
        data_prefix=dict(img_path=str(tmp_path), seg_map_path=str(tmp_path)),
        reduce_zero_label=reduce_zero_label,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="mmseg.LoadAnnotations"),
            dict(type="mmseg.PackSegInputs"),
        ],
    )
    expected = np.zeros((classes, classes))
    np.add.at(expected, (truth.ravel(), found.ravel()), 1)
    counted = confusion_matrix.calculate_confusion_matrix(dataset, list(found + reduce_zero_label))
    assert np.array_equal(counted, expected)


@pytest.mark.parametrize(("package", "name"), _MENDS)
def test_what_is_mended_is_there(package: str, name: str) -> None:
    """A text that is not found would be left as it is without a word."""
    pytest.importorskip(package)
    path = tools_of(package)[name]
    text = path.read_text(encoding="utf-8")
    assert all(wrong in text for wrong, _ in _MENDS[package, name])
    compile(source_of(package, name, path), name, "exec")
