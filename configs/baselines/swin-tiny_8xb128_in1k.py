"""Swin-T on ImageNet-1K, under EyeToy's recipe."""

_base_ = ["../eyetoy_imagenet.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").swin_tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.2),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=__size.channels[-1]),
)
