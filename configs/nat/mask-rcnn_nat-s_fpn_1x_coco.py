"""Mask R-CNN with NAT-Small: 1x schedule, of which nothing is published."""

_base_ = "../mask_rcnn_eyetoy_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="small",
        drop_path_rate=0.35,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_small.pth"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
