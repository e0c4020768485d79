"""Cascade Mask R-CNN with DiNAT_s-Small: 3x schedule; published: 52.3 box AP, 45.2 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").small
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.5),
    neck=dict(in_channels=__size.channels),
)
