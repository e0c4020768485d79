"""The configs of docs/your-data.md run as they stand, from the data to a prediction, and so do those of extending.md.

The latter's are built, trained and loaded; their data are random.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import SAMPLE, STAGES, dry_run_apart, photos_by_largest_object

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n# configs/(my_\w+\.py)\n(.*?)```", re.DOTALL)
CONFIGS = dict(BLOCK.findall((ROOT / "docs/your-data.md").read_text()))
# The same, small enough for a test.
DEMO = {
    "my_segmentation.py": """
model.update(backbone=dict(arch=dict(type="demo")))
model["decode_head"].update(in_channels=[32, 64, 128, 192], channels=32)
model["auxiliary_head"].update(in_channels=128)
""",
    "my_detection.py": """
model.update(backbone=dict(arch=dict(type="demo")), neck=dict(in_channels=[32, 64, 128, 192]))
""",
    "my_classification.py": """
model.update(backbone=dict(arch=dict(type="demo")))
model["head"].update(in_channels=192)
""",
}


def test_there_is_one_for_each_toolbox():
    assert set(CONFIGS) == set(DEMO)


@pytest.mark.parametrize("name", DEMO)
def test_config_of_the_page(tmp_path, name):
    text = CONFIGS[name]
    base = re.search(r'_base_ = "(.+)"', text)[1]
    text = text.replace(f'"{base}"', f'"{ROOT}/configs/{base}"').replace("data/sample", str(SAMPLE))
    if name == "my_classification.py":
        folders = tmp_path / "photos"
        for photo, label in photos_by_largest_object("training"):
            if label < 2:
                folder = folders / ("cat", "dog")[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / photo).symlink_to(SAMPLE / "images/training" / photo)
        split = [sys.executable, "tools/split_classes.py", folders, "--train", "0.8"]
        subprocess.run(split, cwd=ROOT, check=True, capture_output=True)
        text = text.replace('"my_data"', repr(str(tmp_path)))
    path = tmp_path / name
    path.write_text(text + DEMO[name])
    cells, error = dry_run_apart(path, own_data=True)
    assert not error and len(cells) == len(STAGES)


# Of each example of docs/extending.md: the file, and what its config says.
EXAMPLE = re.compile(r"```python\n# (my_\w+)\.py\n(.*?)```\n\n((?:    [^\n]*\n)+)", re.DOTALL)
EXTENDING = (ROOT / "docs/extending.md").read_text()
EXTENSIONS = {name: (code, config) for name, code, config in EXAMPLE.findall(EXTENDING)}
BASE = textwrap.dedent(re.search(r"(?:    _base_ = .*\n)(?:    .*\n)+", EXTENDING)[0])


def test_there_is_an_example_for_each_part():
    assert list(EXTENSIONS) == ["my_attention", "my_encoder", "my_backbone"]
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 25 for code, _ in EXTENSIONS.values())


@pytest.mark.parametrize("name", EXTENSIONS)
def test_own_parts_from_a_config(name, tmp_path, monkeypatch):
    """Built from a config, trained, frozen, in layers, and loaded from a file, as any other backbone."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    code, model = EXTENSIONS[name]
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    as_typed = BASE.replace("my_attention", name) + textwrap.dedent(model)
    (tmp_path / "config.py").write_text(as_typed)
    assert load_config(tmp_path / "config.py").model.backbone.type in model
    (tmp_path / "config.py").write_text(as_typed.replace('"tiny"', '"demo"'))  # the same, small enough for a test
    heads = ["decode_head", "auxiliary_head"] if "arch" in model else ["decode_head"]
    config = load_config(tmp_path / "config.py", options={f"model.{head}.in_channels": None for head in heads})
    init_default_scope("mmseg")
    config.model.decode_head.channels = 16
    backbone, head = MODELS.build(config.model.backbone), MODELS.build(config.model.decode_head)
    assert sys.modules[name].__file__ == str(tmp_path / f"{name}.py")
    assert any(type(part).__module__ == name for part in backbone.modules())
    maps = backbone.train()(torch.randn(2, 3, 64, 96))
    assert [m.shape[1:] for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.out_channels, backbone.out_strides, strict=True)
    ]
    head(maps).sin().sum().backward()
    without = [key for key, p in backbone.named_parameters() if p.grad is None]
    assert without == [key for key, p in backbone.named_parameters() if not p.requires_grad]
    assert bool(without) == ("frozen_stages" in model)
    depths = [backbone.get_layer_depth(key) for key, _ in backbone.named_parameters() if not key.startswith("norm")]
    assert {depth for depth, _ in depths} == set(range(depths[0][1] - 1))  # a depth for every part, none between

    torch.save({"state_dict": {f"backbone.{key}": x for key, x in backbone.state_dict().items()}}, tmp_path / "a.pth")
    config.model.backbone.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "a.pth"))
    loaded = MODELS.build(config.model.backbone)
    loaded.init_weights()
    assert all(torch.equal(x, backbone.state_dict()[key]) for key, x in loaded.state_dict().items())


def test_own_back_end(monkeypatch):
    """The page's runs under its name, within `use_backend`, and refuses what it says."""
    from eyetoy_mm.ops import neighborhood_attention, use_backend
    from eyetoy_mm.ops.attention import BACKENDS

    code = re.search(r"```python\n# own_backend\.py\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    monkeypatch.setitem(BACKENDS, "double", None)  # taken away after the test
    exec(compile(code, "own_backend.py", "exec"), {"__name__": "own_backend"})
    query, key, value = torch.randn(3, 2, 6, 7, 2, 8)
    expected = neighborhood_attention(query, key, value, 3, backend="reference")
    with use_backend("double"):
        torch.testing.assert_close(neighborhood_attention(query, key, value, 3), expected)
        with pytest.raises(RuntimeError, match="'double' cannot run .* it is for CPUs"):
            neighborhood_attention(*(x.to("meta") for x in (query, key, value)), 3)
