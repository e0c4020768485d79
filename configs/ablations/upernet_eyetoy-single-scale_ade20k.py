"""Multi-scale: one head group in every layer, that of the finest scale, with the heads of all."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(multi_scale=False)))
