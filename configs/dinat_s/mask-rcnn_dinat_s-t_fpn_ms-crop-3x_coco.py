"""Mask R-CNN with DiNAT_s-Tiny: 3x schedule; published: 46.6 box AP, 42.1 mask AP."""

_base_ = ["../eyetoy/mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
