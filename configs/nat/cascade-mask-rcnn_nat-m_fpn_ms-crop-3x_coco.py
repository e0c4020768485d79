"""Cascade Mask R-CNN with NAT-Mini: 3x schedule; published: 50.3 box AP, 43.6 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="mini",
        drop_path_rate=0.2,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth"),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
