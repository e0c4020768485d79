"""Mask R-CNN with DiNAT_s-Small: 3x schedule; published: 48.6 box AP, 43.5 mask AP."""

_base_ = "../eyetoy/mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT_s",
        arch="small",
        dilations="coco",
        drop_path_rate=0.35,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_s_small_in1k_224.pth",
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
