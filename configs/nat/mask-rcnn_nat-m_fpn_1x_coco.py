"""Mask R-CNN with NAT-Mini: 1x schedule, of which nothing is published."""

_base_ = ["../mask_rcnn_eyetoy_coco.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").mini
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
