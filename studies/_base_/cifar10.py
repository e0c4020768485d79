"""CIFAR-10: 1,000 iterations of 64 of the first 45,000 training images, evaluated on the other 5,000 once.

EyeToy with maps at strides 2, 4 and 8: a narrow `shallow` with a third stage and a global stack.
"""

_base_ = "../../configs/eyetoy/eyetoy-shallow_b128-30e_cifar10-45k.py"
model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=(32, 64, 128),
            depths=(1, 1, 1),
            num_heads=(1, 1, 2),
            windows=[(17, 13, 11, 9), (17, 13, 11, 9), (7,)],
            merging=[(1, 2, 4, 8), (1, 2, 4, 8), (1,)],
            global_layers=1,
            global_heads=4,
            register_tokens=8,
            stem_channels=16,
        ),
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=128),
)
train_dataloader = dict(batch_size=64, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=1000),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=1000, val_interval=1000)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=1),
)
