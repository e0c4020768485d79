"""Mask2Former with DiNAT-Large, windows of 11: 100 epochs of COCO's instances; published: 50.8 mask AP."""

_base_ = [
    "../eyetoy/mask2former_eyetoy-t_8xb2-lsj-50e_coco.py",
    "../_base_/backbones/dinat.py",
    "../_base_/schedules/mask2former_100e.py",
]
__size = _base_.pop("dinat").large_k11
__long = _base_.pop("mask2former_100e")
model = dict(
    backbone=dict(
        _delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="mask2former", drop_path_rate=0.3
    ),
    panoptic_head=dict(in_channels=__size.channels, num_queries=200),
)
param_scheduler = __long.param_scheduler
train_cfg = __long.train_cfg
