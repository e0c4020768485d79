"""CamVid at 256x192: 600 iterations of 4 whole images, evaluated once, on the labels of 480x360.

The demo size of EyeToy, with maps at strides 4 to 32 as the backbones beside it have them, and SegFormer's head. Images
are as large in training as in the evaluation: in crops a model learns where it is from their borders, and the more so
the shorter it is trained.
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
resize = dict(type="Resize", scale=(256, 192), keep_ratio=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=[*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[4:]]),
)
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[1:]]
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
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
