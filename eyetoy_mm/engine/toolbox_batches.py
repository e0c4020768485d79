"""Small made-up batches for any model of mmdet, mmseg and mmpretrain, in the form its data preprocessor takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.structures import InstanceData, PixelData

from eyetoy_mm.registry import type_name

Sample = dict[str, Any]
BATCH = 2


def make_batch(
    config: Config, training: bool = True, count: int | None = None, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Images and what there is to learn about them, or to look at.

    Args:
        config: A config of a model of mmdet, mmseg or mmpretrain, with `default_scope`.
        training: For a loss; else for a prediction.
        count: How many images; a few when None.
        size: Their height and width; small ones that the model takes when None, and what the config's pipeline makes
            of an image for a model of mmpretrain.

    Returns:
        What a data loader of the config could give, for the model's `data_preprocessor`.
    """
    maker: Callable[[Config, bool, int | None, tuple[int, int] | None], dict[str, Any]] = {
        "mmdet": _detection_batch,
        "mmseg": _segmentation_batch,
        "mmpretrain": _pretraining_batch,
    }[config.default_scope]
    return maker(config, training, count, size)


def _image(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


# --- mmdet ----------------------------------------------------------------------------------------------------------


def _detection_batch(config: Config, training: bool, count: int | None, size: tuple[int, int] | None) -> dict[str, Any]:
    model, generator = config.model, np.random.default_rng(0)
    count, size = count or (BATCH if training else 1), size or _detection_size(model)
    if type_name(model) == "BaseReID":
        return _reid_batch(generator, training)
    if _takes_videos(model, training):
        return pseudo_collate([_video(generator, size, frames=2) for _ in range(count)])
    samples = [_detection_sample(model, generator, size) for _ in range(count)]
    if type_name(model.get("data_preprocessor")) == "MultiBranchDataPreprocessor" and training:
        return _branches(samples)
    return pseudo_collate(samples)


def _detection_size(model: dict) -> tuple[int, int]:
    if type_name(model) == "CornerNet":
        return 128, 128
    side = ((model.get("bbox_head") or {}).get("anchor_generator") or {}).get("input_size")  # SSD's
    return (side, side) if isinstance(side, int) else (128, 160)


def _detection_sample(model: dict, generator: np.random.Generator, size: tuple[int, int]) -> Sample:
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=_image_facts(size))
    sample.gt_instances = _instances(generator, size, count=4)
    sample.ignored_instances = InstanceData(bboxes=_boxes(generator, size, 1))
    stride = 8 if type_name(model) in ("HybridTaskCascade", "SCNet") else 1
    rows, columns = size[0] // stride, size[1] // stride
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(generator.integers(0, 2, (1, rows, columns))))
    if type_name(model) == "FastRCNN":
        sample.proposals = InstanceData(bboxes=_boxes(generator, size, 20).tensor, scores=torch.rand(20))
    if type_name(model) in ("GLIP", "GroundingDINO"):
        sample.text, sample.custom_entities, sample.tokens_positive = "a cat . a dog", False, -1
    return dict(inputs=_tensor(_image(generator, *size)), data_samples=sample)


def _image_facts(size: tuple[int, int]) -> dict[str, Any]:
    return dict(
        img_id=0,
        img_path="made-up.jpg",
        img_shape=size,
        ori_shape=size,
        batch_input_shape=size,
        pad_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=(0, size[0], 0, size[1]),
        homography_matrix=np.eye(3, dtype=np.float32),
    )


def _boxes(generator: np.random.Generator, size: tuple[int, int], count: int) -> Any:
    from mmdet.structures.bbox import HorizontalBoxes

    height, width = size
    start = generator.uniform(0, 0.5, (count, 2)) * (width, height)
    side = generator.uniform(0.2, 0.45, (count, 2)) * (width, height)
    return HorizontalBoxes(torch.tensor(np.hstack([start, start + side]), dtype=torch.float32))


def _instances(generator: np.random.Generator, size: tuple[int, int], count: int) -> InstanceData:
    from mmdet.structures.mask import BitmapMasks

    boxes = _boxes(generator, size, count)
    masks = np.zeros((count, *size), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tensor.long().tolist(), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    return InstanceData(bboxes=boxes, labels=torch.zeros(count, dtype=torch.long), masks=BitmapMasks(masks, *size))


def _takes_videos(model: dict, training: bool) -> bool:
    still = training and model["data_preprocessor"].get("use_det_processor")  # the detector alone is trained
    return type_name(model.get("data_preprocessor")) == "TrackDataPreprocessor" and not still


def _video(generator: np.random.Generator, size: tuple[int, int], frames: int) -> Sample:
    from mmdet.structures import DetDataSample, TrackDataSample

    samples = []
    for frame in range(frames):
        facts = dict(_image_facts(size), frame_id=frame, video_length=frames, ori_video_length=frames)
        sample = DetDataSample(metainfo=facts)
        sample.gt_instances = _instances(generator, size, count=3)
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.tensor
        sample.gt_instances.instances_ids = torch.arange(3)
        samples.append(sample)
    video = TrackDataSample(video_data_samples=samples)
    video.set_metainfo(dict(key_frames_inds=[0], ref_frames_inds=list(range(1, frames))))
    return dict(inputs=torch.stack([_tensor(_image(generator, *size)) for _ in range(frames)]), data_samples=video)


def _reid_batch(generator: np.random.Generator, training: bool) -> dict[str, Any]:
    from mmdet.structures import ReIDDataSample

    sample = ReIDDataSample(metainfo=dict(img_shape=(256, 128)))
    sample.set_gt_label([0, 0, 1, 1] if training else 0)  # two pictures of each person
    images = [_tensor(_image(generator, 256, 128)) for _ in range(4 if training else 1)]
    return pseudo_collate([dict(inputs=torch.stack(images) if training else images[0], data_samples=sample)])


def _branches(samples: list[Sample]) -> dict[str, Any]:
    labeled, unlabeled = samples
    branches: dict[str, list] = dict(sup=[labeled], unsup_teacher=[unlabeled], unsup_student=[copy.deepcopy(unlabeled)])
    return {key: {name: [s[key] for s in branch] for name, branch in branches.items()} for key in samples[0]}


# --- mmseg ----------------------------------------------------------------------------------------------------------


def _segmentation_batch(
    config: Config, training: bool, count: int | None, size: tuple[int, int] | None
) -> dict[str, Any]:
    from mmseg.structures import SegDataSample

    generator, size = np.random.default_rng(0), size or segmentation_size(config)
    samples = []
    for _ in range(count or (BATCH if training else 1)):
        facts = dict(_image_facts(size), img_padding_size=(0, 0, 0, 0), padding_size=(0, 0, 0, 0))
        sample = SegDataSample(metainfo=facts)
        labels = np.repeat(np.repeat(generator.integers(0, 2, (4, 4)), size[0] // 4 + 1, 0), size[1] // 4 + 1, 1)
        labels = labels[None, : size[0], : size[1]]
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels.copy()))
        sample.gt_edge_map = PixelData(data=torch.from_numpy(labels[:, ::-1].astype(np.uint8).copy()))
        sample.gt_depth_map = PixelData(data=torch.rand(size))
        samples.append(dict(inputs=_tensor(_image(generator, *size)), data_samples=sample))
    return pseudo_collate(samples)


def segmentation_size(config: Config) -> tuple[int, int]:
    """Height and width of the images of :func:`make_batch` for a model of mmseg."""
    if type_name(config.model.get("decode_head")) == "LRASPPHead":  # pools windows of 49 pixels at stride 8
        return 512, 512
    backbone = config.model.get("backbone") or config.model.get("image_encoder") or {}
    size = backbone.get("img_size")
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if size else (128, 128)


# --- mmpretrain -----------------------------------------------------------------------------------------------------


def _pretraining_batch(
    config: Config, training: bool, count: int | None, size: tuple[int, int] | None
) -> dict[str, Any]:
    split = "train" if training else "test"
    loader = config.get(f"{split}_dataloader") or config.get("test_dataloader") or {}
    dataset = loader.get("dataset", {})
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    steps = dataset.get("pipeline") or config.get(f"{split}_pipeline") or _own_size(config)
    if size is not None:
        steps = [dict(type="PackInputs")]
    pipeline = Compose([step for step in copy.deepcopy(steps) if not type_name(step).startswith("Load")])
    generator = np.random.default_rng(0)
    image = _image(generator, *(size or (240, 260)))
    if type_name(dataset) == "MNIST":
        image = image[:28, :28, 0]
    samples = [pipeline(_classified(image)) for _ in range(count or BATCH)]
    collate = default_collate if type_name(loader.get("collate_fn")) == "default_collate" else pseudo_collate
    return collate(samples)


def _own_size(config: Config) -> list[dict]:
    size = config.model.get("backbone", {}).get("img_size", 224)
    return [dict(type="Resize", scale=(size, size)), dict(type="PackInputs")]


def _classified(image: np.ndarray) -> Sample:
    size = image.shape[:2]
    return dict(img=image, img_path="made-up.jpg", sample_idx=0, img_shape=size, ori_shape=size, gt_label=1)
