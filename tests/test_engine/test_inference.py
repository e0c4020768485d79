"""Opening models for inference."""

import copy
from pathlib import Path

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks
from benchmarks.trust.onerule import write_odd_images
from eyetoy_mm.archs import ARCHS
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build
from eyetoy_mm.engine.inference import open_predictor, paint_files
from eyetoy_mm.engine.preprocessing import read_image
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import TOOLBOXES, own_mmengine, write_checkpoint, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["deformable-detr_eyetoy-t_16xb2-50e_coco", "dino-4scale_eyetoy-t_8xb2-12e_coco"])
def test_detectors_that_write_into_their_config_open_more_than_once(name, tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    config = load_config(ROOT / f"configs/eyetoy/{name}.py", work_dir=str(tmp_path))
    config.model.backbone.arch.type = "demo"
    config.model.neck.in_channels = list(ARCHS["demo"].embed_dims)[1:]
    config.model.encoder.num_layers = config.model.decoder.num_layers = 1
    config.model.num_queries = 20
    config.model.test_cfg.max_per_img = 5
    config.test_dataloader.dataset.pipeline[1].scale = (96, 64)
    checkpoint = tmp_path / "weights.pth"
    torch.save(build(config).state_dict(), checkpoint)
    before = copy.deepcopy(config.model)

    photo = read_image(next((ROOT / "data/sample/images/validation").glob("*.jpg")))
    found = [open_predictor(config, str(checkpoint), "cpu").predict(photo).pred_instances for _ in range(2)]
    assert len(found[0]) == 5 and torch.equal(found[0].scores, found[1].scores)
    assert config.model == before


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_odd_images_do_not_end_a_folders_run(toolbox, tmp_path):
    pytest.importorskip(toolbox)
    resize = (
        'resize.update(type="ResizeEdge", scale=64)' if toolbox == "mmpretrain" else "resize.update(keep_ratio=True)"
    )
    config = write_config(tmp_path, toolbox, resize + "\n")
    (folder := tmp_path / "photos").mkdir()
    paths = write_odd_images(folder)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(write_checkpoint(config)), "cpu")
        painted = paint_files(predictor, paths, tmp_path / "painted")
        done = []
        with pytest.raises(UserError, match="of 9 images were not painted") as refused:
            done.extend(target for _, target in painted)  # extend keeps what came before the error
    reasons = str(refused.value).splitlines()[1:]
    assert f"{folder / 'empty.png'} is empty" in str(refused.value)
    for name in ("cut short", "no image"):
        assert f"{folder / name}.png is not an image that can be read" in str(refused.value)
    assert {"good", "grey", "rgba", "16 bit"} <= {path.stem for path in (tmp_path / "painted").iterdir()}
    assert len(reasons) + len(done) == len(paths) and all(str(folder) in reason for reason in reasons)


def test_classes_are_named_without_the_checkpoints_word(tmp_path):
    """By the data set of the config, where the file has tensors alone."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    config = write_config(tmp_path, "mmseg")
    checkpoint = write_checkpoint(config)
    torch.save(torch.load(checkpoint)["state_dict"], checkpoint)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    assert predictor.painter.dataset_meta["classes"] == tuple("0123456")
