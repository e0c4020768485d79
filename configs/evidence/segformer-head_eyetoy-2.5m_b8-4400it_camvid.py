"""CamVid from scratch with 2.47 M parameters on one CPU core in an hour or two: 4,400 crops of 240 x 320 by eight.

The maps have strides 4 to 32, as in the sizes of the project: a quarter of the time of the model with strides 2 to 16
beside it. Rare classes weigh more.
"""

_base_ = "segformer-head_eyetoy-2.2m_b8-200e_camvid.py"
crop_size = (240, 320)
channels = [48, 64, 128, 192]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch=dict(embed_dims=channels, depths=(1, 2, 4, 2), stem_stride=4, conv_groups=16)),
    decode_head=dict(in_channels=channels, loss_decode=dict(loss_weight=1 / (8 * 240 * 320))),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    num_workers=0, persistent_workers=False, sampler=dict(type="InfiniteSampler"), dataset=dict(pipeline=train_pipeline)
)
optim_wrapper = dict(type="eyetoy_mm.BFloat16OptimWrapper", optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=300),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=300, end=4400),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4400, val_interval=1100)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=220, max_keep_ckpts=2),
)
