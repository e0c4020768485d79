"""EyeToy-base on ImageNet-1K: tiny's recipe, with more drop path."""

_base_ = ["../eyetoy_imagenet.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.5), head=dict(in_channels=__size.channels[-1]))
