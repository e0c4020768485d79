"""Models of several toolboxes, open in one process."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from eyetoy_mm.paths import package_file

for toolbox in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(toolbox)

PHOTO = np.zeros((48, 64, 3), np.uint8)


def config_of(name: str) -> Config:
    return Config.fromfile(str(package_file("configs") / "sample" / f"{name}.py"))


def test_each_finds_its_transforms_whichever_was_opened_last():
    from mmdet.apis import inference_detector, init_detector
    from mmpretrain import ImageClassificationInferencer, get_model
    from mmseg.apis import inference_model, init_model

    detector = init_detector(config_of("mask-rcnn_eyetoy-demo_sample"), device="cpu")
    segmentor = init_model(config_of("upernet_eyetoy-demo_sample"), device="cpu")
    classifier = get_model(config_of("eyetoy-shallow_2e_cifar10-45k"))
    for last in ("mmdet", "mmpretrain", "mmseg"):
        with DefaultScope.overwrite_default_scope(last):
            assert inference_detector(detector, PHOTO).pred_instances.bboxes.shape[1] == 4
            assert inference_model(segmentor, PHOTO).pred_sem_seg.data.shape == (1, 48, 64)
            assert ImageClassificationInferencer(classifier)(PHOTO)[0]["pred_label"] < 10
            assert DefaultScope.get_current_instance().scope_name == last
