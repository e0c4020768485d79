"""Cascade Mask R-CNN with DiNAT-Large: 3x schedule; published: 55.3 box AP, 47.8 mask AP."""

_base_ = "../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="large",
        dilations="coco",
        drop_path_rate=0.6,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_large_in22k_224.pth",
        ),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-05))
