"""Cascade Mask R-CNN with NAT-Small: 3x schedule; published: 52.0 box AP, 44.9 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="small",
        drop_path_rate=0.3,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_small.pth"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
