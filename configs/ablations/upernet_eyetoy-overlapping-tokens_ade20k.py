"""Token merging: every merged token also sees half of each neighbor's cell."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(overlap=True)))
