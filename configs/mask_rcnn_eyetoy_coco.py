"""Mask R-CNN with EyeToy-tiny and FPN on COCO: 1x schedule, 16 images a step (8 GPUs x 2), AMP."""

_base_ = [
    "_base_/models/mask-rcnn_eyetoy.py",
    "_base_/schedules/adamw_1x.py",
    "_base_/mmdet_runtime.py",
    "mmdet::_base_/datasets/coco_instance.py",
]
