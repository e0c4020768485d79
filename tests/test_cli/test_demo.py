"""`eyetoy demo detect` in one iteration: everything but that the model learns, which it then has to say.

What every change must pass runs `eyetoy demo --short` as a whole (.ci/run).
"""

import cv2
import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.engine import demo
from tests.toolbox_runs import own_mmengine

pytest.importorskip("mmdet", reason="mmdetection is not installed")
FEWER = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", "default_hooks.checkpoint.interval=1"]
FEWER += ["train_dataloader.dataset.indices=4", "val_dataloader.dataset.indices=2"]


def test_a_demo_that_did_not_learn_says_so(tmp_path, monkeypatch, capsys):
    train = demo.train
    monkeypatch.setattr(demo, "train", lambda what, work_dir, options: train(what, work_dir, [*options, *FEWER]))
    with own_mmengine(), pytest.raises(SystemExit, match="^error: the model did not learn"):
        main(["demo", "detect", "--short", "--work-dir", str(tmp_path)])
    rows = cv2.imread(str(tmp_path / "overlay.png"))
    assert rows.shape == (4 * 512, 3 * 512, 3)
    assert "trained, on the validation images" in capsys.readouterr().out and (tmp_path / "epoch_1.pth").is_file()
