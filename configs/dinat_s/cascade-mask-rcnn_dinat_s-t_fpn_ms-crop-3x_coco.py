"""Cascade Mask R-CNN with DiNAT_s-Tiny: 3x schedule; published: 51.0 box AP, 44.1 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.3),
    neck=dict(in_channels=__size.channels),
)
