"""Mask R-CNN with EyeToy-base."""

_base_ = "../mask_rcnn_eyetoy_coco.py"
model = dict(backbone=dict(arch=dict(type="base"), drop_path_rate=0.4), neck=dict(in_channels=[96, 192, 512, 768]))
