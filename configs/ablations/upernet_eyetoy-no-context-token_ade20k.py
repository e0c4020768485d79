"""Global stack: registers alone, without the context token, which dense heads do not read."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(use_context_token=False)))
