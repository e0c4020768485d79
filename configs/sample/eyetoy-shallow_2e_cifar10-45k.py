"""A narrow shallow model on CIFAR-10 for two CPU cores: 2 epochs of 45,000 training images, 5,000 to validate."""

_base_ = "../eyetoy/eyetoy-shallow_b128-30e_cifar10-45k.py"
model = dict(
    backbone=dict(arch=dict(embed_dims=(64, 128), stem_channels=32), drop_path_rate=0.0),
    head=dict(in_channels=128, loss=dict(_delete_=True, type="CrossEntropyLoss")),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=200, end=1408),
]
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=50))
