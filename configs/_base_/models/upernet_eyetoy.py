# UperNet on EyeToy-tiny; another size replaces the backbone and the heads' `in_channels`.
_base_ = ["mmseg::_base_/models/upernet_swin.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.3),
    decode_head=dict(in_channels=__size.channels, num_classes=150),
    auxiliary_head=dict(in_channels=__size.channels[2], num_classes=150),
)
