"""Mask R-CNN with EyeToy-tiny: 3x schedule, multi-scale training and crops, 16 images a step (8 GPUs x 2), AMP."""

_base_ = [
    "../_base_/models/mask-rcnn_eyetoy.py",
    "../_base_/datasets/coco_instance_ms-crop.py",
    "../_base_/schedules/adamw_3x.py",
    "../_base_/mmdet_runtime.py",
]
