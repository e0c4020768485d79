"""Cascade Mask R-CNN with NAT-Base: 3x schedule; published: 52.3 box AP, 45.1 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").base
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.5),
    neck=dict(in_channels=__size.channels),
)
