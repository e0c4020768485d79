# The field's schedule for transformers on ImageNet: AdamW 1e-3, 300 epochs, 20 of them warm-up, then a cosine;
# no decay of biases either.
_base_ = ["mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py", "no_decay.py"]
optim_wrapper = dict(
    _delete_=True,
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0.0, custom_keys={{_base_.no_decay.custom_keys}}),
    clip_grad=dict(max_norm=5.0),
)
