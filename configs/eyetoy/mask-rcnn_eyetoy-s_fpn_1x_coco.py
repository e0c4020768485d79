"""Mask R-CNN with EyeToy-small."""

_base_ = "../mask_rcnn_eyetoy_coco.py"
model = dict(backbone=dict(arch=dict(type="small"), drop_path_rate=0.3), neck=dict(in_channels=[64, 128, 384, 640]))
