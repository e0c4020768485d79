"""UperNet with EyeToy-small."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(arch=dict(type="small"), drop_path_rate=0.4), decode_head=dict(in_channels=[64, 128, 384, 640])
)
