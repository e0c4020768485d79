"""Mask R-CNN with NAT-Tiny: 1x schedule, of which nothing is published."""

_base_ = "../mask_rcnn_eyetoy_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="tiny",
        drop_path_rate=0.2,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth"),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
