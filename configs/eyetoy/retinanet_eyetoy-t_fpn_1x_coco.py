"""RetinaNet with EyeToy-tiny: 1x schedule, boxes alone, 16 images a step (8 GPUs x 2), AMP."""

_base_ = [
    "../_base_/models/retinanet_eyetoy.py",
    "../_base_/schedules/adamw_1x.py",
    "../_base_/mmdet_runtime.py",
    "mmdet::_base_/datasets/coco_detection.py",
]
