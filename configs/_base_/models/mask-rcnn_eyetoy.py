# Mask R-CNN with FPN on EyeToy-tiny; another size replaces the backbone and the neck's `in_channels`.
_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
