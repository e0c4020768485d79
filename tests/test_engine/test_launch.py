"""What a training or an evaluation is asked for beside its config, and cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")
from mmengine.config import Config

from eyetoy_mm.engine import launch, test_time
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.errors import UserError


@pytest.mark.parametrize("setting", [None, dict(enable=True), dict(base_batch_size=None)])
def test_nothing_to_scale_the_learning_rate_from(setting: dict | None) -> None:
    with pytest.raises(UserError, match=r"has no auto_scale_lr=dict\(base_batch_size=...\) to scale from"):
        launch.train(Config(dict(auto_scale_lr=setting)), auto_scale_lr=True)


def test_every_test_dataset_is_augmented() -> None:
    inner = [dict(type="X", pipeline=[1]), dict(type="RepeatDataset", dataset=dict(type="X", pipeline=[2]))]
    loader = dict(dataset=dict(type="ConcatDataset", datasets=inner))
    config = Config(dict(test_dataloader=loader, tta_pipeline=[dict(type="A")], tta_model=dict(type="B")))
    test_time.augment(config)
    first, second = config.test_dataloader.dataset.datasets
    assert first.pipeline == second.dataset.pipeline == config.tta_pipeline
    assert "pipeline" not in config.test_dataloader.dataset
    config.tta_model = None
    with pytest.raises(UserError, match="has no test-time augmentation: tta_model missing"):
        launch.evaluate(config, "weights.pth", tta=True)


def test_pictures_need_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--show-dir .*/file/shown should be a folder, and .*/file is a file"):
        launch.evaluate(Config(dict()), "weights.pth", kept=launch.Kept(show_dir=str(tmp_path / "file" / "shown")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu0",), "--device gpu0 cannot be used on this machine: "),
        (("meta",), "--device meta cannot be used on this machine: "),
        (("cpu", 2.0), "--score must be a score from 0 to 1, got 2.0"),
        (("cpu", float("nan")), "got nan"),
    ],
)
def test_where_and_above_which_score_a_model_predicts(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_predictor(Config(dict(default_scope="mmseg")), "weights.pth", *arguments)


def test_mixed_precision_beside_another_wrapper(tmp_path: Path) -> None:
    (path := tmp_path / "config.py").write_text("model = dict()\noptim_wrapper = dict(type='ApexOptimWrapper')\n")
    with pytest.raises(UserError, match="--amp puts an AmpOptimWrapper in place .* optim_wrapper.type is 'ApexOptimW"):
        load_config(path, amp=True)
    path.write_text("model = dict()\noptim_wrapper = dict()\n")
    with pytest.raises(UserError, match="--amp trains in mixed precision, --cfg-options optim_wrapper.type='OptimWr"):
        load_config(path, amp=True, options={"optim_wrapper.type": "OptimWrapper"})
