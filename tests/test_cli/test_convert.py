"""`eyetoy convert` as users run it, and what it refuses."""

from pathlib import Path

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.backbones import DiNAT_s
from eyetoy_mm.backbones.nat_checkpoints import to_official
from eyetoy_mm.cli import main
from tests import program

ROOT = Path(__file__).resolve().parents[2]
MINI = dict(arch=None, embed_dims=8, depths=(1, 2), num_heads=(1, 2), kernel_size=3, mlp_ratio=2)


@pytest.fixture
def classifier(tmp_path):
    """A file with the published names: ``layers.`` of DiNAT_s, ``norm.`` and ``head.``."""
    own = DiNAT_s(**MINI, out_type="avg_featmap").state_dict()
    state = to_official({f"backbone.{key}": x for key, x in own.items()} | {"head.fc.weight": torch.randn(5, 16)})
    assert {"layers.0.blocks.0.attn.rpb", "norm.bias", "head.weight"} <= state.keys()
    torch.save(state, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def convert(*arguments):
    main(["convert", *map(str, arguments)])


def test_there_and_back(classifier, tmp_path):
    there, back = tmp_path / "new" / "openmmlab.pth", tmp_path / "back.pth"
    done = program.run("tools/convert_checkpoint.py", classifier, there)
    assert done.returncode == 0, done.stderr
    assert "dict(type='eyetoy_mm.DiNAT_s', arch=None, embed_dims=8, depths=[1, 2], num_heads=[1, 2]" in done.stdout
    state = torch.load(there)["state_dict"]
    assert {"backbone.levels.0.blocks.0.attn.rpb", "backbone.norm1.bias", "head.fc.weight"} <= state.keys()
    convert(there, back, "--to", "official")
    original, again = torch.load(classifier), torch.load(back)
    assert original.keys() == again.keys() and all(torch.equal(original[key], again[key]) for key in original)


def test_what_does_not_fit_is_named_and_nothing_is_written(classifier, tmp_path):
    state = torch.load(classifier)
    for change, message in (
        (lambda s: s.pop("layers.1.blocks.0.mlp.fc2.bias"), r"1 missing \(levels.1.blocks.0.mlp.fc2.bias\)"),
        (lambda s: s.update(other=torch.zeros(1)), r"1 not in the model \(other\)"),
        (lambda s: s.update({"norm.bias": torch.zeros(3)}), r"1 of another shape \(norm1.bias \(3,\) for \(16,\)\)"),
        (lambda s: s.clear() or s.update({"conv1.weight": torch.zeros(1)}), "not a checkpoint of NAT"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(SystemExit, match=message):
            convert(tmp_path / "changed.pth", tmp_path / "target.pth")
    assert not (tmp_path / "target.pth").exists()


def test_files_that_are_not_there_or_already_are(classifier, tmp_path):
    with pytest.raises(SystemExit, match="there is no checkpoint .*nowhere.pth"):
        convert(tmp_path / "nowhere.pth", tmp_path / "target.pth")
    with pytest.raises(SystemExit, match="official.pth exists already"):
        convert(classifier, classifier)


def test_a_config_says_what_the_whole_model_needs(classifier, tmp_path):
    """Also of a file without its last block, which fits a shallower backbone by itself."""
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    state = torch.load(classifier)
    numbers = MINI | dict(type="eyetoy_mm.DiNAT_s", out_type="avg_featmap")
    model = dict(
        type="ImageClassifier", backbone=numbers, head=dict(type="LinearClsHead", num_classes=5, in_channels=16)
    )
    config, target = tmp_path / "config.py", tmp_path / "target.pth"
    config.write_text(f"default_scope = 'mmpretrain'\nmodel = {model!r}\n")
    with pytest.raises(SystemExit, match=r"does not fit .* 1 missing \(head.fc.bias\)"):
        convert(classifier, target, "--config", config)
    state["head.bias"] = torch.zeros(5)
    short = {key: x for key, x in state.items() if not key.startswith("layers.1.blocks.1.")}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(SystemExit, match=r"13 missing \(backbone.levels.1.blocks.1"):
        convert(tmp_path / "short.pth", target, "--config", config)
    assert not target.exists()
    torch.save(state, classifier)
    convert(classifier, target, "--config", config)
    assert "head.fc.bias" in torch.load(target)["state_dict"]
