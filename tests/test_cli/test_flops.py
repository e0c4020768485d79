"""The tables of parameters and FLOPs, as users get them."""

import re
from pathlib import Path

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from eyetoy_mm.backbones import EyeToy
from eyetoy_mm.cli import main
from eyetoy_mm.engine import dry_run
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.model_table import Whole, build, measure, measure_config
from eyetoy_mm.errors import UserError
from tests import program

ROOT = Path(__file__).resolve().parents[2]


def cells(text: str) -> dict[str, list[str]]:
    """Rows of both tables by the model's name, joined."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *rest = line.strip("| ").split(" | ")
            rows.setdefault(name, []).extend(rest)
    return rows


def test_the_command_prints_models_and_their_parts():
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    done = program.run("tools/model_table.py", "--models", "demo", "ConvNeXt-T", "--sizes", "64", "96")
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    assert rows["model"][:3] == ["parameters", "FLOPs at 64", "FLOPs at 96"]
    assert rows["model"][3:] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "global stack"]
    parameters = sum(p.numel() for p in EyeToy(arch="demo").parameters())
    assert rows["demo"][0] == f"{parameters / 1e6:.2f} M"
    assert rows["ConvNeXt-T"][0] == "27.82 M" and rows["ConvNeXt-T"][-1] == "-"
    assert all(re.fullmatch(r"[\d.]+ M / [\d.]+ G / [\d.]+ G", cell) for cell in rows["demo"][3:])


@pytest.mark.parametrize("name", ["demo", "Swin-T", "ConvNeXt-T"])
def test_parts_make_up_the_whole(name):
    model = build(name)
    if model is None:
        pytest.skip(f"there is no {name}")
    total, *parts = measure(model, [64]).values()
    assert len(parts) >= 5 and total == tuple(map(sum, zip(*parts, strict=True)))


def test_models_that_are_not_there_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr("eyetoy_mm.engine.model_table.PEERS", {"NAT-T": dict(type="eyetoy_mm.NoSuchBackbone")})
    main(["flops", "--models", "NAT-T"])
    out, err = capsys.readouterr()
    assert "NAT-T" not in out and "NAT-T" in err


def test_unknown_models_are_refused_with_the_names_that_there_are():
    with pytest.raises(SystemExit, match="^error: there is no model huge; the models are default, .*Swin-T"):
        main(["flops", "--models", "huge"])


@pytest.mark.parametrize("name", ["mask-rcnn_eyetoy-demo_sample", "upernet_eyetoy-demo_sample"])
def test_whole_models_count_as_pytorch_counts_them(name):
    from torch.utils.flop_counter import FlopCounterMode

    path = ROOT / f"configs/sample/{name}.py"
    _, size, parameters, flops = measure_config(path)
    width, height = map(int, size.split("x"))
    model = dry_run.build(load_config(path)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Whole(model)(torch.zeros(1, 3, height, width))
    # PyTorch counts a multiply-add as two, and neither norms nor resizing
    assert float(flops.removesuffix(" G")) == pytest.approx(counter.get_total_flops() / 2e9, rel=0.03)
    assert parameters == f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"


def test_configs_of_classifiers_are_refused():
    with pytest.raises(UserError, match="is for mmpretrain; --configs takes detectors and segmentors"):
        measure_config(ROOT / "configs/eyetoy_imagenet.py")


@pytest.mark.parametrize("size", ["0", "-1", "a"])
def test_sizes_are_numbers_of_pixels(size, capsys):
    with pytest.raises(SystemExit):
        main(["flops", "--models", "demo", f"--sizes={size}"])
    assert f"must be a whole number of at least 1, got '{size}'" in capsys.readouterr().err
