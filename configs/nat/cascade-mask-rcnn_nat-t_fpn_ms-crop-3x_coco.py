"""Cascade Mask R-CNN with NAT-Tiny: 3x schedule; published: 51.4 box AP, 44.5 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.3),
    neck=dict(in_channels=__size.channels),
)
