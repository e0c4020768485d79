"""UperNet with NAT-Base; published: 48.5 mIoU, 49.7 with flips and scales."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").base
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, drop_path_rate=0.5),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
)
