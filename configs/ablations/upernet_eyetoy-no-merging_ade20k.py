"""Token merging: none; head groups differ in their windows alone."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(merging=[(1,) * 4, (1,) * 4, (1,) * 4, (1,)])))
