"""UperNet with EyeToy-small."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").small
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.4), decode_head=dict(in_channels=__size.channels))
