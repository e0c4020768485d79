"""The demo: `upernet_eyetoy_ade20k.py`, small enough to learn the nuclei of data/nuclei on two CPU cores in minutes."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/datasets/nuclei_semantic.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").demo
model = dict(
    data_preprocessor=dict(size=(192, 192)),
    backbone=dict(**__size.backbone, drop_path_rate=0.0),
    decode_head=dict(in_channels=__size.channels, channels=64, num_classes=2),
    auxiliary_head=dict(in_channels=__size.channels[2], channels=32, num_classes=2),
)
train_dataloader = dict(batch_size=4, num_workers=1, dataset={{_base_.nuclei_train}})
val_dataloader = dict(num_workers=1, dataset={{_base_.nuclei_val}})
test_dataloader = val_dataloader
test_pipeline = {{_base_.nuclei_val.pipeline}}
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=30, end=400),
]
train_cfg = dict(max_iters=400, val_interval=200)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200, max_keep_ckpts=2, save_best="mIoU"))
custom_hooks = [*_base_.custom_hooks, dict(type="eyetoy_mm.EvaluateUntrainedHook")]
randomness = dict(seed=0)
