# What the schedules exempt from weight decay: normalization layers, learnable tokens and positional parameters, by the
# names that EyeToy, NAT, Swin and ViT have for them.
no_decay = dict(
    custom_keys={
        name: dict(decay_mult=0.0)
        for name in (
            "norm", "register_tokens", "context_token", "cls_token", "pos_embed", "rpb", "relative_position_bias_table",
        )
    }
)  # fmt: skip
