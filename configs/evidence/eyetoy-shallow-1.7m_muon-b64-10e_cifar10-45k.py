"""CIFAR-10 with 1.69 M parameters in 10 epochs of 45,000 images: `shallow` for small maps, with Muon, in bfloat16.

The maps have 16 x 16 and 8 x 8 positions, which the windows of `shallow` see all of at once. Here tokens merge 1 to 4
positions per axis and overlap, which mixes neighbors as a convolution does. Muon (timm's, with AdamW for norms and
biases) learns more from each image. An epoch is 704 iterations.
"""

_base_ = "../eyetoy/eyetoy-shallow_b128-30e_cifar10-45k.py"
model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=(64, 192),
            depths=(2, 3),
            stem_channels=32,
            windows=((7, 7, 5, 4), (7, 5, 4, 2)),
            merging=((1, 2, 2, 4), (1, 1, 2, 4)),
            overlap=True,
        ),
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=192),
)
train_dataloader = dict(batch_size=64, num_workers=0)
optim_wrapper = dict(
    type="eyetoy_mm.BFloat16OptimWrapper",
    optimizer=dict(_delete_=True, type="timm.optim.Muon", lr=4e-3, weight_decay=0.05, nesterov=True, betas=(0.9, 0.99)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=200),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.01, by_epoch=False, begin=2816, end=7040),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=7040, val_interval=1408)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=176, max_keep_ckpts=2, save_best="accuracy/top1"),
)
randomness = dict(seed=0)
