"""Cascade Mask R-CNN with DiNAT-Large: 3x schedule; published: 55.3 box AP, 47.8 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").large
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.6),
    neck=dict(in_channels=__size.channels),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-05))
