"""Mask R-CNN with DiNAT-Mini: 1x schedule, of which nothing is published."""

_base_ = "../mask_rcnn_eyetoy_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="mini",
        dilations="coco",
        drop_path_rate=0.2,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_mini_in1k_224.pth",
        ),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
