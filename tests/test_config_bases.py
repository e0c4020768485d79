"""The facts that configs share: channels and checkpoints of each size stand once, as the code and the zoo have them."""

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS

from eyetoy_mm.backbones import DiNAT

CONFIGS = Path(__file__).parents[1] / "configs"
TEXTS = {path: path.read_text() for path in sorted(CONFIGS.rglob("*.py"))}
TABLES = {path.stem: Config.fromfile(path)[path.stem] for path in sorted(CONFIGS.glob("_base_/backbones/*.py"))}
PUBLISHED = [(family, size) for family in ("nat", "dinat", "dinat_s") for size in TABLES[family]]


@pytest.mark.parametrize(("family", "size"), [*PUBLISHED, *(("eyetoy", size) for size in TABLES["eyetoy"])])
def test_channels_are_those_of_the_backbone(family, size):
    table = TABLES[family][size]
    arch = table.backbone.arch | dict(depths=[1] * len(table.channels))  # deep enough to have every map
    with torch.device("meta"):
        backbone = MODELS.build(table.backbone | dict(arch=arch))
    assert table.channels == [backbone.get_submodule(f"norm{stage}").weight.numel() for stage in backbone.out_indices]
    sizes = {size.partition("_k")[0] for size in TABLES[family]}  # large_k11 is large with another window
    assert sizes == set(getattr(backbone, "ARCHS", TABLES["eyetoy"]))


@pytest.mark.parametrize(("family", "size"), PUBLISHED)
def test_checkpoints_are_the_classifiers_of_the_zoo(family, size):
    checkpoint = TABLES[family][size].init_cfg.checkpoint
    zoo = yaml.safe_load((CONFIGS / family / "metafile.yml").read_text())["Models"]
    weights = {model["Name"]: model.get("Weights") for model in zoo}
    if size.startswith("large"):  # the zoo's is this one, fine-tuned on ImageNet-1K
        assert "in22k" in checkpoint and checkpoint not in weights.values()
    else:
        assert checkpoint == weights[f"{family}-{size}_8xb128_in1k"]


def test_every_checkpoint_stands_once():
    addresses = list(chain.from_iterable(re.findall(r"[\w/:.-]+\.pth", text) for text in TEXTS.values()))
    assert len(addresses) == len(set(addresses)) > 0


def test_configs_take_their_size_out_of_the_table_and_carry_no_table():
    users = [path for path, text in TEXTS.items() if "backbones/" in text]
    for path in users:
        popped = [name for name in re.findall(r'_base_\.pop\("(\w+)"\)', TEXTS[path]) if name in TABLES]
        assert re.findall(r"backbones/(\w+)\.py", TEXTS[path]) == popped
    keys = Config.fromfile(CONFIGS / "_base_" / "models" / "classifier_eyetoy-shallow.py").keys()
    assert users and set(keys) == {"model"}


def test_elsewhere_a_child_takes_another_size_and_its_child_changes_one_number(tmp_path):
    (tmp_path / "child.py").write_text(
        "_base_ = ['eyetoy_mm::_base_/models/classifier_eyetoy.py', 'eyetoy_mm::_base_/backbones/dinat.py']\n"
        "__size = _base_.pop('dinat').small\n"
        "model = dict(\n"
        "    backbone=dict(_delete_=True, **__size.backbone, out_type='avg_featmap'),\n"
        "    head=dict(in_channels=__size.channels[-1]),\n"
        ")\n"
    )
    (tmp_path / "grandchild.py").write_text(
        "_base_ = 'child.py'\nmodel = dict(backbone=dict(arch=dict(kernel_size=5)))\n"
    )
    config = Config.fromfile(tmp_path / "grandchild.py")
    assert config.model.head.in_channels == 768 and "dinat" not in config
    with torch.device("meta"):
        backbone = MODELS.build(config.model.backbone)
    assert type(backbone) is DiNAT and backbone.arch == replace(DiNAT.ARCHS["small"], kernel_size=5)


def test_the_example_of_the_page_changes_one_number(tmp_path):
    pytest.importorskip("mmseg")
    page = (CONFIGS.parent / "docs" / "configs.md").read_text()
    ((base, change),) = re.findall(r'```python\n.*\n_base_ = "(.+)"\n(model = .+)\n```', page)
    (tmp_path / "my_nat.py").write_text(f"_base_ = {str(CONFIGS / base)!r}\n{change}\n")
    model, usual = (Config.fromfile(path).model for path in (tmp_path / "my_nat.py", CONFIGS / base))
    assert model.backbone.arch == dict(type="small", kernel_size=5) and usual.backbone.arch == dict(type="small")
    usual.backbone.update(arch=model.backbone.arch, init_cfg=None)
    assert model == usual
