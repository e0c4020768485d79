"""A sample of what docs/openmmlab.md tells, and how failures are told."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.toolbox_configs import (
    Outcome,
    config_files,
    first_of_each_folder,
    load_small,
    reason_of,
    survey_all,
)
from tests import program

for package in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ROOT = Path(__file__).resolve().parents[2]


def test_a_sample_of_configs_goes_all_the_way() -> None:
    configs = [
        ("mmdet", "guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py"),  # deform_conv, masked_conv, focal loss
        ("mmseg", "psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024.py"),
        ("mmpretrain", "resnet/resnet18_8xb32_in1k.py"),
    ]
    outcomes = list(survey_all(configs, jobs=2))
    assert sorted((o.toolbox, o.config) for o in outcomes) == sorted(configs)
    for outcome in outcomes:
        assert not outcome.reason and len(outcome.cells) == 3, outcome
        assert outcome.cells[0].endswith(" M") and outcome.cells[1].startswith("loss ")


def test_what_does_not_get_there_is_told() -> None:
    configs = [("mmpretrain", "replknet/replknet-31B_32xb64_in1k.py"), ("mmdet", "no/such_config.py")]
    configs.append(("mmpretrain", "resnet/resnet18_8xb32_in1k.py"))
    by_config = {o.config: o for o in survey_all(configs[:2])}
    assert by_config["no/such_config.py"].reason.startswith("FileNotFoundError")
    assert "inheritance chain" in by_config["replknet/replknet-31B_32xb64_in1k.py"].reason
    (slow,) = survey_all(configs[2:], seconds=0)
    assert slow.reason == "no result after 0 s" and slow.cells == []


def test_reasons() -> None:
    texts = {
        "transformers is not installed, please install it by: pip install transformers.": "transformers",
        "No module named 'lap.core'": "lap",
        'Please run "pip install sklearn" to install sklearn first.': "sklearn",
        "lap is not installed,\n                 please install it by: pip install lap": "lap",
    }
    for text, package in texts.items():
        assert reason_of(RuntimeError(text)) == f"needs the package {package}"
    assert reason_of(ValueError("too\n  large")) == "ValueError: too large"


def test_configs_are_made_small_and_their_models_stay() -> None:
    config = load_small("mmdet", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
    assert config.model.backbone.depth == 50 and config.model.backbone.init_cfg is None
    assert config.model.train_cfg.rcnn.sampler.num == 32
    vit = load_small("mmseg", "setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py")
    assert vit.model.backbone.img_size == (128, 128) == vit.model.data_preprocessor.size
    assert vit.model.backbone.num_layers == 24


def test_folders() -> None:
    files = [config for config in config_files("mmdet") if config.startswith(("dino/", "glip/"))]
    firsts = first_of_each_folder("mmdet", files)
    assert sorted(config.rpartition("/")[0] for config in firsts) == sorted({c.rpartition("/")[0] for c in files})
    assert not any("_base_" in config for config in config_files("mmseg"))


def test_the_table_of_the_program() -> None:
    done = program.run("benchmarks/openmmlab.py", "mmpretrain/lenet")
    assert done.returncode == 0, done.stderr
    assert "1 configs: 1 builds, 1 steps, 1 predicts." in done.stdout
    assert "| `lenet/lenet5_mnist.py` | 0.1 M | loss 2." in done.stdout
    wrong = program.run("benchmarks/openmmlab.py", "mmrotate")
    assert wrong.returncode == 1 and "mmrotate is not in one of mmdet, mmseg, mmpretrain" in wrong.stderr


@pytest.mark.skipif(find_spec("transformers") is not None, reason="transformers is installed")
def test_a_missing_package_is_named() -> None:
    (outcome,) = survey_all([("mmdet", "glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py")])
    assert isinstance(outcome, Outcome) and outcome.reason == "needs the package transformers"
