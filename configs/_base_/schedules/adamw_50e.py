# The shallow models' schedule: AdamW 1e-3, 50 epochs, 2 of them warm-up, then a cosine to zero; no clipping.
_base_ = "no_decay.py"
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0.0, custom_keys={{_base_.no_decay.custom_keys}}),
)
param_scheduler = [  # the cosine ends with the training, also where a config changes max_epochs
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
val_cfg = dict()
test_cfg = dict()
