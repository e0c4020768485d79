"""Deformable DETR with EyeToy-base: 50 epochs of COCO."""

_base_ = ["deformable-detr_eyetoy-t_16xb2-50e_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone), neck=dict(in_channels=__size.channels[1:]))
