"""ConvNeXt-T on ImageNet-1K, under EyeToy's recipe."""

_base_ = ["../eyetoy_imagenet.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").convnext_tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.1),
    head=dict(in_channels=__size.channels[-1]),
)
