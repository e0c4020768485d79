"""Mask R-CNN with EyeToy-base."""

_base_ = ["../mask_rcnn_eyetoy_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.4), neck=dict(in_channels=__size.channels))
