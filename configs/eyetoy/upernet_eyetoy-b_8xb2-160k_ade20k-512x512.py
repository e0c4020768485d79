"""UperNet with EyeToy-base."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").base
model = dict(
    backbone=dict(**__size.backbone, drop_path_rate=0.5),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
)
