"""Mask R-CNN with NAT-Small: 3x schedule; published: 48.4 box AP, 43.2 mask AP."""

_base_ = ["../eyetoy/mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").small
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.35),
    neck=dict(in_channels=__size.channels),
)
