# The field's schedule for transformers on COCO: AdamW 1e-4, 12 epochs, 1,000 iterations of warm-up.
_base_ = "mmdet::_base_/schedules/schedule_1x.py"
optim_wrapper = dict(
    _delete_=True,
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # no decay for normalization layers and learnable tokens
    paramwise_cfg=dict(
        custom_keys=dict(
            norm=dict(decay_mult=0.0), register_tokens=dict(decay_mult=0.0), context_token=dict(decay_mult=0.0)
        )
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
