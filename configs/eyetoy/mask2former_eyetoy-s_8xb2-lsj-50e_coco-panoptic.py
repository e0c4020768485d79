"""Mask2Former with EyeToy-small: COCO's things and stuff."""

_base_ = ["mask2former_eyetoy-t_8xb2-lsj-50e_coco-panoptic.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").small
model = dict(backbone=dict(**__size.backbone), panoptic_head=dict(in_channels=__size.channels))
