"""`eyetoy demo detect` in one iteration: everything but that the model learns, which it then has to say.

What every change must pass runs `eyetoy demo --short` as a whole (.ci/run).
"""

import subprocess
import sys

import cv2
import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.engine import demo
from tests.toolbox_runs import own_mmengine

pytest.importorskip("mmdet", reason="mmdetection is not installed")
FEWER = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", "default_hooks.checkpoint.interval=1"]
FEWER += ["train_dataloader.dataset.indices=4", "val_dataloader.dataset.indices=2"]
# What has not learned proposes and finds as much as it may, and all of it is pasted, counted and painted.
FIND_LITTLE = {
    "model.train_cfg.rpn_proposal.max_per_img": 20, "model.test_cfg.rpn.max_per_img": 20,
    "model.test_cfg.rcnn.max_per_img": 5,
}  # fmt: skip
FEWER += [f"{key}={number}" for key, number in FIND_LITTLE.items()]


def test_a_demo_that_did_not_learn_says_so(tmp_path, monkeypatch, capsys):
    train, load_config = demo.train, demo.load_config
    monkeypatch.setattr(demo, "train", lambda what, work_dir, options: train(what, work_dir, [*options, *FEWER]))
    monkeypatch.setattr(demo, "load_config", lambda path: load_config(path, options=FIND_LITTLE))
    with own_mmengine(), pytest.raises(SystemExit, match="^error: the model did not learn"):
        main(["demo", "detect", "--short", "--work-dir", str(tmp_path)])
    rows = cv2.imread(str(tmp_path / "overlay.png"))
    assert rows.shape == (4 * 512, 3 * 512, 3)
    assert "trained, on the validation images" in capsys.readouterr().out and (tmp_path / "epoch_1.pth").is_file()


def test_what_a_demo_trains_ends_with_it(monkeypatch):
    """Ctrl-C left it running, with an output that nobody read."""
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(3))\n"
    code += "print('Iter(train) 1', flush=True)\ntime.sleep(60)"
    started, start = [], subprocess.Popen

    def instead(command, **settings):
        started.append(start([sys.executable, "-c", code], **settings))
        return started[0]

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", instead)
    monkeypatch.setattr(demo, "print", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        demo.train(demo.DEMOS["segment"], "nowhere", [])
    assert started[0].returncode == 3
