"""Cascade Mask R-CNN with EyeToy-base: 3x schedule, multi-scale training and crops."""

_base_ = "cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(backbone=dict(arch=dict(type="base"), drop_path_rate=0.5), neck=dict(in_channels=[96, 192, 512, 768]))
