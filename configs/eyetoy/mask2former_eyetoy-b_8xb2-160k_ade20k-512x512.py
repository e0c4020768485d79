"""Mask2Former with EyeToy-base on ADE20K."""

_base_ = ["mask2former_eyetoy-t_8xb2-160k_ade20k-512x512.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone), decode_head=dict(in_channels=__size.channels))
