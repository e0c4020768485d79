"""Global stack: none."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(global_layers=0)))
