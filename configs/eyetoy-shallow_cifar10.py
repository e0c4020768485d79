"""The shallow model on CIFAR-10, as the proposal trained it: AdamW, 30 epochs, global average pooling, no clipping."""

_base_ = [
    "_base_/models/classifier_eyetoy.py",
    "_base_/schedules/no_decay.py",
    "_base_/mmpretrain_runtime.py",
    "mmpretrain::_base_/datasets/cifar10_bs16.py",
    "mmpretrain::_base_/schedules/cifar10_bs128.py",
]
model = dict(
    backbone=dict(arch="shallow", out_type="avg_featmap", dropout=0.2, drop_path_rate=0.0),
    head=dict(num_classes=10, in_channels=256),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05), paramwise_cfg={{_base_.no_decay}}
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=2, end=30, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
