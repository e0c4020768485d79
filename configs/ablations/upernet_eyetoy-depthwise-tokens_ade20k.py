"""Token merging: tokenizers that are depthwise where channels stay, in place of 32 groups."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(conv_groups="depthwise")))
