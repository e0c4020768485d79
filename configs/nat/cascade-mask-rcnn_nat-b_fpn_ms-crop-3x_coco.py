"""Cascade Mask R-CNN with NAT-Base: 3x schedule; published: 52.3 box AP, 45.1 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="base",
        drop_path_rate=0.5,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth"),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
