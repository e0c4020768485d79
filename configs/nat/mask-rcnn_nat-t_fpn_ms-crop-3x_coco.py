"""Mask R-CNN with NAT-Tiny: 3x schedule; published: 47.7 box AP, 42.6 mask AP."""

_base_ = "../eyetoy/mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
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
