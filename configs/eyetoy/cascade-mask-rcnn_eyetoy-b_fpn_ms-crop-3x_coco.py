"""Cascade Mask R-CNN with EyeToy-base: 3x schedule, multi-scale training and crops."""

_base_ = ["cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.5), neck=dict(in_channels=__size.channels))
