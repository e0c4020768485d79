"""Cascade Mask R-CNN with DiNAT-Tiny: 3x schedule; published: 52.2 box AP, 45.1 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="tiny",
        dilations="coco",
        drop_path_rate=0.3,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_tiny_in1k_224.pth",
        ),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
