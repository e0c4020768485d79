"""Attention windows: NAT's 7 in every head group."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(backbone=dict(arch=dict(windows=[(7,) * 4, (7,) * 4, (7,) * 4, (7,)])))
