"""Mask R-CNN with Swin-T, under EyeToy's recipe."""

_base_ = ["../mask_rcnn_eyetoy_coco.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").swin_tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, **__size.maps, drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
