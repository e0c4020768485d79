"""Cascade Mask R-CNN with DiNAT_s-Large: 3x schedule; published: 54.8 box AP, 47.2 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").large
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.6),
    neck=dict(in_channels=__size.channels),
)
optim_wrapper = dict(optimizer=dict(lr=5e-05))
