"""Register tokens: none; the context token alone carries global information."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(register_tokens=0)))
