# What the schedules exempt from weight decay: normalization layers and learnable tokens.
no_decay = dict(
    custom_keys=dict(
        norm=dict(decay_mult=0.0), register_tokens=dict(decay_mult=0.0), context_token=dict(decay_mult=0.0)
    )
)
