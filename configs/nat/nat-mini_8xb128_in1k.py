"""NAT-Mini on ImageNet-1K: 300 epochs, of which 20 warm up, and 10 more at the lowest rate; published: 81.8 %."""

_base_ = ["../eyetoy_imagenet.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").mini
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, out_type="avg_featmap", drop_path_rate=0.2),
    head=dict(in_channels=__size.channels[-1]),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=5e-6, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=310)
custom_hooks = [dict(type="eyetoy_mm.CheckClsLabelsHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]  # no EMA
