"""Mask2Former with EyeToy-base: COCO's instances."""

_base_ = ["mask2former_eyetoy-t_8xb2-lsj-50e_coco.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(backbone=dict(**__size.backbone), panoptic_head=dict(in_channels=__size.channels))
