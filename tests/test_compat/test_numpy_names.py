"""Metrics that use names of NumPy's past."""

from __future__ import annotations

import colorsys
import importlib

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401


def test_retrieval_metrics_of_mmpretrain() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.evaluation.metrics import RetrievalAveragePrecision, RetrievalRecall

    found = [np.array([3, 1, 2]), np.array([0, 2, 1])]  # by falling score
    right = [[1], [0, 1]]
    recalls = RetrievalRecall.calculate(list(found), right, topk=(1, 2), pred_indices=True, target_indices=True)
    assert [recall.item() for recall in recalls] == [50, 100]
    precision = RetrievalAveragePrecision.calculate(found, right, topk=3, pred_indices=True, target_indices=True)
    assert precision.item() == pytest.approx(100 * (1 / 2 + (1 + 2 / 3) / 2) / 2)


def test_youtube_vis_metric_of_mmdet() -> None:
    pytest.importorskip("mmdet")
    pytest.importorskip("pycocotools")
    from mmdet.evaluation import YouTubeVISMetric
    from mmdet.structures import DetDataSample, TrackDataSample
    from mmengine.structures import InstanceData
    from pycocotools import mask as coco_mask

    mask = np.zeros((10, 10), dtype=bool)
    mask[2:8, 2:8] = True
    outline = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    found = dict(
        bboxes=torch.tensor([[2.0, 2, 8, 8]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        instances_id=torch.tensor([1]),
        masks=torch.from_numpy(mask)[None],
    )
    frames = []
    for frame in range(2):
        sample = DetDataSample(
            metainfo=dict(img_id=frame, ori_shape=(10, 10), frame_id=frame, video_id=1, video_length=2)
        )
        sample.pred_track_instances = InstanceData(**found)
        truth = dict(bbox=[2, 2, 8, 8], bbox_label=0, instance_id=1, ignore_flag=False, mask=outline)
        sample.set_metainfo(dict(instances=[truth], video_id=1, video_length=2, ori_video_length=2))
        frames.append(sample)
    video = TrackDataSample(video_data_samples=frames)
    metric = YouTubeVISMetric()
    metric.dataset_meta = dict(classes=("person",))
    metric.process({}, [video.to_dict()])
    assert metric.evaluate(1)["youtube_vis/segm_mAP"] == 1.0


@pytest.mark.parametrize("factor", [-0.5, -0.1, -0.02, 0.0, 0.3])
@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_hues_shift_backwards(backend: str, factor: float) -> None:
    mmcv = pytest.importorskip("mmcv")
    image = np.full((4, 5, 3), (40, 90, 200), dtype=np.uint8)
    shifted = mmcv.adjust_hue(image, factor, backend)
    assert shifted.shape == image.shape and shifted.dtype == np.uint8
    hue = [colorsys.rgb_to_hsv(*(pixel[::-1] / 255))[0] for pixel in (image[0, 0], shifted[0, 0])]
    assert abs((hue[1] - hue[0] - factor + 0.5) % 1 - 0.5) < 0.02


@pytest.mark.parametrize("file", ["mmdet.evaluation.functional.ytviseval", "mmpretrain.evaluation.metrics.retrieval"])
def test_the_rest_is_numpy_and_numpy_stays_as_it_is(file: str) -> None:
    pytest.importorskip(file.split(".")[0])
    module = importlib.import_module(file)
    assert module.np.cumsum is np.cumsum and module.np.linalg is np.linalg
    assert "float" not in vars(np)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        module.np.no_such_name  # noqa: B018
