# What heads that are transformers change in their AdamW: the backbone learns at a tenth of the rate, and nothing that
# no_decay.py lists decays, nor do the heads' queries and embeddings. It takes the place of the toolboxes' rules, which
# are for ResNet, with `optim_wrapper = _base_.pop("backbone_tenth")`.
_base_ = "no_decay.py"
backbone_tenth = dict(
    constructor="eyetoy_mm.BackboneLROptimWrapperConstructor",
    paramwise_cfg=dict(
        _delete_=True,
        backbone_lr_mult=0.1,
        norm_decay_mult=0.0,
        custom_keys=dict(
            **_base_.pop("no_decay").custom_keys,
            **{name: dict(decay_mult=0.0) for name in ("query_embed", "query_feat", "level_embed")},
        ),
    ),
)
