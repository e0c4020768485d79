"""Cascade Mask R-CNN with DiNAT-Base: 3x schedule; published: 53.4 box AP, 46.2 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="base",
        dilations="coco",
        drop_path_rate=0.6,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_base_in1k_224.pth",
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-05))
