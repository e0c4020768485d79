# Mask R-CNN with FPN on EyeToy-tiny; a larger size changes `arch`, and the neck's `in_channels` to its embed_dims.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
model = dict(
    backbone=dict(_delete_=True, type="eyetoy_mm.EyeToy", arch=dict(type="tiny"), drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 384, 576]),
)
