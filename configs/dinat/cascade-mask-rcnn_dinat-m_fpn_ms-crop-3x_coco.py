"""Cascade Mask R-CNN with DiNAT-Mini: 3x schedule; published: 51.2 box AP, 44.4 mask AP."""

_base_ = ["../eyetoy/cascade-mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").mini
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="coco", drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
)
