"""Mask R-CNN with EyeToy-small: 3x schedule, multi-scale training and crops."""

_base_ = "mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(backbone=dict(arch=dict(type="small"), drop_path_rate=0.4), neck=dict(in_channels=[64, 128, 384, 640]))
