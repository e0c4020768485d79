"""Models of several toolboxes, open in one process."""

import numpy as np
import pytest
import torch
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


OWN = dict(
    mmdet="mask-rcnn_eyetoy-demo_sample", mmseg="upernet_eyetoy-demo_sample", mmpretrain="eyetoy-shallow_2e_cifar10-45k"
)


def openers() -> dict:
    from mmdet.apis import DetInferencer, init_detector, init_track_model
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer, get_model
    from mmseg.apis import MMSegInferencer, init_model

    return dict(
        mmdet=(init_detector, init_track_model, DetInferencer),
        mmseg=(init_model, MMSegInferencer),
        mmpretrain=(get_model, ImageClassificationInferencer, FeatureExtractor),
    )


@pytest.mark.parametrize("toolbox", OWN)
def test_a_config_of_another_toolbox_is_named_with_what_opens_it(toolbox):
    for other in OWN.keys() - {toolbox}:
        path = config_of(OWN[other]).filename
        message = rf"{OWN[other]}.py is a config for {other} .*, and not for {toolbox}: open it with {other}\."
        for opens in openers()[toolbox]:
            for config in (path, Config.fromfile(path)):
                with pytest.raises(ValueError, match=message):
                    opens(config, device="cpu")


def test_so_is_the_config_in_a_checkpoint(tmp_path):
    from mmdet.apis import DetInferencer

    checkpoint = tmp_path / "segmentor.pth"
    torch.save(dict(meta=dict(cfg=config_of(OWN["mmseg"]).pretty_text), state_dict=dict(x=torch.ones(1))), checkpoint)
    with pytest.raises(ValueError, match=r"the config is a config for mmseg .*open it with mmseg\.apis"):
        DetInferencer(weights=str(checkpoint), device="cpu")
