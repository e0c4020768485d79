"""UperNet with EyeToy-base."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(arch=dict(type="base"), drop_path_rate=0.5),
    decode_head=dict(in_channels=[96, 192, 512, 768]),
    auxiliary_head=dict(in_channels=512),
)
