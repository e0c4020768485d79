"""Opening models for inference."""

import copy
from pathlib import Path

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.eyetoy import ARCHS
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.preprocessing import read_image

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
