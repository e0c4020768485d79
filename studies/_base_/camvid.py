"""CamVid: 600 iterations of 4 crops of 192x256 from images at 0.75 to 2 times their size, evaluated at 480x360 once.

The demo size of EyeToy, with maps at strides 4 to 32 as the backbones beside it have them, and SegFormer's head.
"""

_base_ = [
    "../../configs/_base_/models/segformer-head_eyetoy.py",
    "../../configs/_base_/schedules/no_decay.py",
    "../../configs/_base_/mmseg_runtime.py",
    "../../configs/_base_/datasets/camvid.py",
]
model = dict(
    data_preprocessor=dict(size=(192, 256)),
    backbone=dict(arch=dict(_delete_=True, type="demo"), drop_path_rate=0.0),
)
crop = dict(type="RandomCrop", crop_size=(192, 256), cat_max_ratio=0.75)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=[*_base_.train_pipeline[:3], crop, *_base_.train_pipeline[4:]]),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0.0, custom_keys={{_base_.no_decay.custom_keys}}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=60, end=600),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=600, val_interval=600)
val_cfg = dict()
test_cfg = dict()
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=100, max_keep_ckpts=1),
)
