"""DINO with EyeToy-small: 12 epochs of COCO."""

_base_ = ["dino-4scale_eyetoy-t_8xb2-12e_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").small
model = dict(backbone=dict(**__size.backbone), neck=dict(in_channels=__size.channels[1:]))
