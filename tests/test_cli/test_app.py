"""The page of a model: its functions for each toolbox, and one page that is served and asked."""

import socket
from contextlib import closing

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from eyetoy_mm.cli import app as command
from eyetoy_mm.cli import main
from eyetoy_mm.engine import app
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import PHOTOS, TOOLBOXES, write_checkpoint, write_config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Config and checkpoint of an untrained model of a toolbox."""

    def make(toolbox):
        pytest.importorskip(toolbox)
        config = write_config(tmp_path_factory.mktemp(toolbox), toolbox)
        return config, write_checkpoint(config)

    return make


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_prediction_and_table(toolbox, files):
    config, checkpoint = files(toolbox)
    predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    painted, rows = app.predict(predictor, PHOTOS[0], 0.0)
    image = predictor.read(PHOTOS[0])
    sample = predictor.predict(image)
    assert painted.shape == image.shape and painted.dtype == np.uint8
    assert {name for name, _ in rows} <= set(predictor.dataset_meta["classes"])
    if toolbox == "mmseg":
        counts = np.bincount(sample.pred_sem_seg.data.flatten().numpy())
        expected = sorted((100 * counts[counts > 0] / counts.sum()).tolist(), reverse=True)
        assert [value for _, value in rows] == [f"{share:.1f} %" for share in expected]
    elif toolbox == "mmdet":
        assert len(rows) == len(sample.pred_instances.scores) and not app.predict(predictor, PHOTOS[0], 1.0)[1]
    else:
        best = predictor.dataset_meta["classes"][int(sample.pred_score.argmax())]
        assert rows[0] == (best, f"{sample.pred_score.max():.3f}")


def test_table_of_panoptic_segments():
    mmdet = pytest.importorskip("mmdet.structures")
    ids = torch.full((1, 4, 5), 3)  # of three classes: what is no segment
    ids[0, 0], ids[0, 1], ids[0, 3, 0] = 1001, 0, 2001  # mmdet's, 1000 for each segment before it
    sample = mmdet.DetDataSample(pred_panoptic_seg=PixelData(sem_seg=ids))
    rows = app.table_of(sample, dict(classes=("sky", "cat", "dog")), 0.3)
    assert rows == [("sky", "25.0 %"), ("cat", "25.0 %"), ("cat", "5.0 %")]


def test_what_a_position_attends_to(files):
    config, checkpoint = files("mmseg")
    predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    picture = app.attend(predictor, PHOTOS[0], (20, 30), 0)
    other = app.attend(predictor, PHOTOS[0], (200, 100), 0)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and (picture != other).any()
    with pytest.raises(UserError, match="there is no block 99"):
        app.attend(predictor, PHOTOS[0], (20, 30), 99)


def test_without_gradio(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs gradio, which is not installed: pip install 'eyetoy-mm\[demo\]'"):
        main(["app", "config.py", "model.pth"])


def test_ports_that_there_are_not():
    with pytest.raises(SystemExit, match="--port must be from 1 to 65535, got 70000"):
        main(["app", "config.py", "model.pth", "--port", "70000"])


def test_the_page_is_served_and_answers(files, monkeypatch):
    """With all options of the command; the program itself would serve until it is ended."""
    gradio = pytest.importorskip("gradio")
    client = pytest.importorskip("gradio_client")
    config, checkpoint = files("mmseg")
    launch, pages = gradio.Blocks.launch, []

    def launched(page, **kwargs):
        pages.append(page)
        return launch(page, prevent_thread_lock=True, quiet=True, **kwargs)

    monkeypatch.setattr(gradio.Blocks, "launch", launched)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--cfg-options", "randomness.seed=3"]
    main(["app", str(config), str(checkpoint), *options])
    try:
        asked = client.Client(f"http://127.0.0.1:{port}", verbose=False)
        photo = client.handle_file(str(PHOTOS[0]))
        _, table = asked.predict(photo, 0.3, api_name="/predict")
        predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
        assert [tuple(row) for row in table["data"]] == app.predict(predictor, PHOTOS[0], 0.3)[1]
        assert asked.predict(photo, 20, 30, 0, api_name="/attend")
        with pytest.raises(Exception, match="lies outside the image"):
            asked.predict(photo, 9999, 30, 0, api_name="/attend")
    finally:
        pages[0].close()
