"""One preprocessing: what the test loop measures is what every tool and inference function predicts."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.launch import evaluate
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import PHOTOS, SAMPLE, TOOLBOXES, own_mmengine, write_checkpoint, write_config

PHOTO = str(PHOTOS[0])
SMALL = dict(type="Resize", scale=(64, 48))


def change_loader_alone(config: Config) -> None:
    """Another size and decoder in the test data loader, and a data preprocessor at the top of the config alone."""
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline[0] = dict(type="LoadImageFromFile", imdecode_backend="pillow")
    pipeline[1] = SMALL
    if "data_preprocessor" in config.model:
        config.data_preprocessor = config.model.pop("data_preprocessor")


def change_test_pipeline_alone(config: Config) -> None:
    config.test_pipeline[1] = SMALL


def measured(config: Path, checkpoint: Path) -> torch.Tensor:
    """What the test loop predicts for the first photo."""
    out = config.with_suffix(".pkl")
    loaded = load_config(config, work_dir=str(config.parent / "work"))
    loaded.test_dataloader.batch_size = 1
    loaded.test_dataloader.dataset.indices = 1
    loaded.test_evaluator = [loaded.test_evaluator, dict(type="DumpResults", out_file_path=str(out))]
    if loaded.default_scope == "mmpretrain":
        loaded.test_dataloader.dataset.data_prefix = "images/validation"
        loaded.test_dataloader.dataset.with_label = False
        loaded.test_evaluator = loaded.test_evaluator[1:]
    evaluate(loaded, str(checkpoint))
    with open(out, "rb") as file:
        return numbers(pickle.load(file)[0])


def numbers(sample) -> torch.Tensor:
    """What is real in a prediction, in one tensor; labels of untrained models may all be the same."""
    sample = sample if isinstance(sample, dict) else sample.to_dict()
    if "seg_logits" in sample:
        return sample["seg_logits"]["data"]
    if "pred_instances" in sample:
        found = sample["pred_instances"]
        return torch.cat([found["bboxes"], found["scores"][:, None]], dim=1)
    return sample["pred_score"]


def inferred(toolbox: str, config: str, checkpoint: str) -> dict[str, torch.Tensor]:
    """What our predictor and the toolbox' own functions predict."""
    predictor = open_predictor(load_config(config), checkpoint, "cpu")
    found = {"eyetoy infer": numbers(predictor.predict(predictor.read(PHOTO)))}
    if toolbox == "mmseg":
        from mmseg.apis import MMSegInferencer, inference_model, init_model

        found["inference_model"] = numbers(inference_model(init_model(config, checkpoint, device="cpu"), PHOTO))
        inferencer = MMSegInferencer(config, checkpoint, device="cpu")
        found["MMSegInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True))
    elif toolbox == "mmdet":
        from mmdet.apis import DetInferencer, inference_detector, init_detector

        found["inference_detector"] = numbers(inference_detector(init_detector(config, checkpoint, device="cpu"), PHOTO))
        inferencer = DetInferencer(config, checkpoint, device="cpu", show_progress=False)
        found["DetInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True)["predictions"][0])
    else:
        from mmpretrain import ImageClassificationInferencer

        inferencer = ImageClassificationInferencer(config, pretrained=checkpoint, device="cpu")
        found["ImageClassificationInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True)[0])
    return found


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_what_is_measured_is_what_is_inferred(toolbox, tmp_path):
    """Also where a config changes one of the places alone that say how images are prepared."""
    pytest.importorskip(toolbox)
    path = write_config(tmp_path, toolbox)
    checkpoint = write_checkpoint(path)
    results = []
    for change in (change_loader_alone, change_test_pipeline_alone):
        config = Config.fromfile(path)
        change(config)
        changed = tmp_path / f"{change.__name__}.py"
        config.dump(changed)
        with own_mmengine(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = measured(changed, checkpoint)
            for name, result in inferred(toolbox, str(changed), str(checkpoint)).items():
                torch.testing.assert_close(result, expected, msg=lambda text: f"{name}, {change.__name__}: {text}")
        results.append(expected)
    assert results[0].shape != results[1].shape or not torch.allclose(*results, atol=1e-4)
