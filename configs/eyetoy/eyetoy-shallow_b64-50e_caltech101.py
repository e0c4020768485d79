"""The shallow model on Caltech-101 in crops of 128 pixels: 30 training images a class, 50 epochs, from scratch."""

_base_ = [
    "../_base_/models/classifier_eyetoy-shallow.py",
    "../_base_/schedules/adamw_50e.py",
    "../_base_/mmpretrain_runtime.py",
    "../_base_/datasets/caltech101.py",
]
model = dict(
    backbone=dict(arch=dict(stem_stride=2)),
    head=dict(num_classes=101),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
