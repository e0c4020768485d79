"""Cascade Mask R-CNN with ConvNeXt-T, under EyeToy's recipe."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.ConvNeXt",
        arch="tiny",
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        drop_path_rate=0.4,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
