"""CamVid from scratch, 2.47 M parameters on a CPU core: strides 4 to 32, a quarter of the time of its neighbor's."""

_base_ = ["segformer-head_eyetoy-2.2m_b8-200e_camvid.py", "../_base_/datasets/camvid_240x320.py"]
channels = [48, 64, 128, 192]
model = dict(
    data_preprocessor=dict(size=(240, 320)),
    backbone=dict(arch=dict(embed_dims=channels, depths=(1, 2, 4, 2), stem_stride=4, conv_groups=16)),
    decode_head=dict(in_channels=channels, loss_decode=dict(loss_weight=1 / (8 * 240 * 320))),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline={{_base_.small_crops}}))
train_dataloader.update(sampler=dict(type="InfiniteSampler"))
__muon = dict(_delete_=True, type="timm.optim.Muon", lr=3e-3, weight_decay=0.05, nesterov=True, betas=(0.9, 0.99))
optim_wrapper = dict(type="eyetoy_mm.BFloat16OptimWrapper", optimizer=__muon)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=100),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.01, by_epoch=False, begin=800, end=5200),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=5200, val_interval=1300)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=2),
)
