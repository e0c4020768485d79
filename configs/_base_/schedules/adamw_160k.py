# The field's schedule for transformers on ADE20K: AdamW 6e-5, 1,500 iterations of warm-up, then linear to zero.
_base_ = ["mmseg::_base_/schedules/schedule_160k.py", "no_decay.py"]
optim_wrapper = dict(
    _delete_=True,
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg={{_base_.no_decay}},
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
