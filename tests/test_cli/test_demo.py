"""`eyetoy demo` in two iterations: everything but that the model learns, which it then has to say."""

import cv2
import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.engine import demo
from tests.toolbox_runs import own_mmengine

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")


def test_a_demo_that_did_not_learn_says_so(tmp_path, monkeypatch, capsys):
    fewer = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "val_dataloader.dataset.indices=2"]
    train = demo.train
    monkeypatch.setattr(demo, "train", lambda work_dir, options: train(work_dir, [*options, *fewer]))
    with own_mmengine(), pytest.raises(SystemExit, match="^error: the model did not learn"):
        main(["demo", "--short", "--work-dir", str(tmp_path)])
    rows = cv2.imread(str(tmp_path / "overlay.png"))
    assert rows.shape[0] > 2 * 200 and rows.shape[1] == 3 * 320
    assert "untrained ->" in capsys.readouterr().out and (tmp_path / "iter_2.pth").is_file()
