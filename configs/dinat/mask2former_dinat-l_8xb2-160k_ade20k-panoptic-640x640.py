"""Mask2Former with DiNAT-Large, windows of 11: ADE20K's things and stuff, crops of 640; published: 49.4 PQ."""

_base_ = [
    "../_base_/models/mask2former-detection.py",
    "../_base_/datasets/ade20k_panoptic.py",
    "../_base_/schedules/mask2former_160k.py",
    "../_base_/backbones/dinat.py",
]
__size = _base_.pop("dinat").large_k11
__classes = dict(num_things_classes=100, num_stuff_classes=50)
model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type="BatchFixedSizePad", size=(640, 640), pad_mask=True, pad_seg=True)]
    ),
    backbone=dict(
        _delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="mask2former", drop_path_rate=0.3
    ),
    panoptic_head=dict(
        in_channels=__size.channels, num_queries=200, **__classes, loss_cls=dict(class_weight=[1.0] * 150 + [0.1])
    ),
    panoptic_fusion_head=__classes,
)
