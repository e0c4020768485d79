"""Register tokens: 8 in place of 32."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(register_tokens=8)))
