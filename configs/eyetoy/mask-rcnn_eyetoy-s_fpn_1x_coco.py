"""Mask R-CNN with EyeToy-small."""

_base_ = ["../mask_rcnn_eyetoy_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").small
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.3), neck=dict(in_channels=__size.channels))
