"""Configs made ready to run, and the messages for what is missing."""

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.errors import UserError

ENTRY = "configs/upernet_eyetoy_ade20k.py"
pytest.importorskip("mmseg", reason="mmsegmentation is not installed")


@pytest.fixture
def config_file(tmp_path):
    def write(text: str):
        path = tmp_path / "config.py"
        path.write_text(text)
        return path

    return write


def test_entry_config_is_the_fields_recipe():
    config = load_config(ENTRY, launcher="pytorch")
    assert config.model.backbone.type == "eyetoy_mm.EyeToy" and config.model.decode_head.num_classes == 150
    assert config.model.decode_head.norm_cfg.type == ("SyncBN" if torch.accelerator.is_available() else "MMSyncBN")
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 6e-5, 0.01)
    assert config.optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult == 0.0
    assert config.train_cfg.max_iters == 160000 and config.param_scheduler[1].type == "PolyLR"
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16
    assert config.tta_model.type == "SegTTAModel" and config.work_dir == "work_dirs/upernet_eyetoy_ade20k"


def test_no_weight_decay_where_the_field_has_none():
    from mmengine.optim import build_optim_wrapper
    from mmseg.registry import MODELS

    config = load_config("configs/sample/upernet_eyetoy-demo_sample.py")
    model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    decay = {name: group["weight_decay"] for name, group in zip(names, groups, strict=True)}
    without = {name for name, value in decay.items() if value == 0}
    assert {name for name in names if "norm" in name or name.endswith("_token") or name.endswith("_tokens")} == without
    assert decay["backbone.encoder.initial_proj.weight"] == 0.01


def test_one_process_without_accelerator_trains_in_plain_batch_norm_and_float32():
    config = load_config(ENTRY)
    assert config.model.decode_head.norm_cfg.type == config.model.auxiliary_head.norm_cfg.type == "BN"
    expected = "AmpOptimWrapper" if torch.accelerator.is_available() else "OptimWrapper"
    assert config.optim_wrapper.type == expected


def test_command_line_wins():
    options = {"train_cfg.max_iters": 7, "model.backbone.arch": "small", "model.decode_head.in_channels": None}
    config = load_config(ENTRY, options=options, work_dir="elsewhere", data_root="/data/ade")
    assert config.train_cfg.max_iters == 7 and config.model.backbone.arch == "small"
    assert config.model.decode_head.in_channels == [64, 128, 384, 640]  # of what won
    assert config.work_dir == "elsewhere"
    assert config.train_dataloader.dataset.data_root == config.test_dataloader.dataset.data_root == "/data/ade"


def test_data_root_reaches_wrapped_datasets_and_annotation_files(config_file):
    path = config_file("""
default_scope = 'mmdet'
plain = dict(
    type='CocoDataset', data_root='data/coco/', ann_file='annotations/train.json', data_prefix=dict(img='train/')
)
train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[plain])))
val_dataloader = dict(dataset=plain)
val_evaluator = dict(type='CocoMetric', ann_file='data/coco/annotations/train.json')
""")
    config = load_config(path, data_root="/d")
    assert config.train_dataloader.dataset.dataset.datasets[0].data_root == "/d"
    assert config.val_evaluator.ann_file == "/d/annotations/train.json"
    with pytest.raises(UserError) as error:
        check_data(config, "train", "val")
    assert "/d/train  (train, val)" in str(error.value) and "/d/annotations/train.json  (train, val)" in str(
        error.value
    )


def test_missing_data_is_told_once_with_the_way_out(tmp_path, monkeypatch):
    config = load_config(ENTRY)
    (tmp_path / "data/ade/ADEChallengeData2016/images/training").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        check_data(config, "train", "val")
    message = str(error.value)
    assert "data/ade/ADEChallengeData2016/annotations/training  (train)" in message
    assert "data/ade/ADEChallengeData2016/images/validation  (val)" in message
    assert "images/training  (train)" not in message.replace("annotations", "")  # that one is there
    assert "--data-root FOLDER" in message and str(tmp_path) in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "cannot read the config .* SyntaxError"),
        ("x = 1 / 0", "cannot read the config .* ZeroDivisionError"),
        ("default_scope = 'mmrotate'", "is for mmrotate, which is not installed"),
        (
            "_base_ = 'mmrotate::_base_/default_runtime.py'",
            "needs a package that is missing: mmrotate is not installed",
        ),
        ("_base_ = 'nowhere.py'", "cannot read the config .* FileNotFoundError"),
    ],
)
def test_configs_that_cannot_be_used(config_file, text, message):
    with pytest.raises(UserError, match=message):
        load_config(config_file(text))


def test_no_config():
    with pytest.raises(UserError, match="there is no config file configs/nothing.py"):
        load_config("configs/nothing.py")


@pytest.mark.parametrize("name", ["::x", "eyetoy_mm::", "::", "no.such::x"])
def test_half_a_name_of_a_config(name):
    with pytest.raises(UserError, match=f"^{name} should have a package before :: and a config after it"):
        load_config(name)
