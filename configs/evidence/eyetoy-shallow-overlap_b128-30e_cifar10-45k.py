"""CIFAR-10 with 2.93 M parameters: `shallow` narrower, deeper and with overlapping tokens, 30 epochs of 45,000 images.

An epoch is 352 iterations; they are counted, so that a run on a busy machine goes on from within an epoch.
"""

_base_ = "../eyetoy/eyetoy-shallow_b128-30e_cifar10-45k.py"
model = dict(
    backbone=dict(arch=dict(embed_dims=(96, 192), depths=(3, 3), overlap=True), drop_path_rate=0.05),
    head=dict(in_channels=192),
)
train_dataloader = dict(num_workers=0)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=704),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=704, end=10560),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=10560, val_interval=704)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=88, max_keep_ckpts=2, save_best="accuracy/top1"),
)
randomness = dict(seed=0)
