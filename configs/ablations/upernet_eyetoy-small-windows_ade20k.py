"""Attention windows: small ones early too, those of stage 3 in stages 1 and 2."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(windows=[(7, 5, 3, 3), (7, 5, 3, 3), (7, 5, 3, 3), (7,)])))
