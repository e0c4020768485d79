"""Mask2Former with DiNAT-Large, windows of 11: Cityscapes' instances; published: 45.1 mask AP."""

_base_ = [
    "../_base_/models/mask2former-detection.py",
    "../_base_/datasets/cityscapes_instance_512x1024.py",
    "../_base_/schedules/mask2former_160k.py",
    "../_base_/backbones/dinat.py",
]
__size = _base_.pop("dinat").large_k11
__classes = dict(num_things_classes=8, num_stuff_classes=0)
model = dict(
    data_preprocessor=dict(pad_seg=False, batch_augments=None),
    backbone=dict(
        _delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="mask2former", drop_path_rate=0.3
    ),
    panoptic_head=dict(
        in_channels=__size.channels, num_queries=200, **__classes, loss_cls=dict(class_weight=[1.0] * 8 + [0.1])
    ),
    panoptic_fusion_head=__classes,
    test_cfg=dict(panoptic_on=False),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=90000, by_epoch=False)]
train_cfg = dict(max_iters=90000)
