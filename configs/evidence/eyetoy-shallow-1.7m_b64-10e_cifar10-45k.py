"""CIFAR-10 with 1.70 M parameters in 10 epochs of 45,000 images: `shallow`, narrower and deeper, in bfloat16.

Short enough for one CPU core and two hours. An epoch is 704 iterations; they are counted, so that a run on a busy
machine goes on from within an epoch.
"""

_base_ = "../eyetoy/eyetoy-shallow_b128-30e_cifar10-45k.py"
model = dict(
    backbone=dict(arch=dict(embed_dims=(64, 192), depths=(2, 3), stem_channels=32), drop_path_rate=0.0),
    head=dict(in_channels=192),
)
train_dataloader = dict(batch_size=64, num_workers=0)
optim_wrapper = dict(type="eyetoy_mm.BFloat16OptimWrapper", optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=1000, end=7040),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=7040, val_interval=1408)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=176, max_keep_ckpts=2, save_best="accuracy/top1"),
)
randomness = dict(seed=0)
