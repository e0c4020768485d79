"""Cascade Mask R-CNN with NAT-Mini: 3x schedule; published: 50.3 box AP, 43.6 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").mini
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
