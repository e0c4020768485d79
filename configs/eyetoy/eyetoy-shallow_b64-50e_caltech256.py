"""The shallow model on Caltech-256 in crops of 128 pixels: 60 training images a class, 50 epochs, from scratch.

The stem has stride 2, so that the stages have 32 x 32 and 16 x 16 positions, twice those of a CIFAR image a side.
"""

_base_ = [
    "../_base_/models/classifier_eyetoy-shallow.py",
    "../_base_/schedules/adamw_50e.py",
    "../_base_/mmpretrain_runtime.py",
    "../_base_/datasets/caltech256.py",
]
model = dict(
    backbone=dict(arch=dict(stem_stride=2)),
    head=dict(num_classes=256),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
