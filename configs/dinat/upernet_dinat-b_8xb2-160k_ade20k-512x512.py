"""UperNet with DiNAT-Base; published: 49.6 mIoU, 50.4 with flips and scales."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").base
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="ade20k", drop_path_rate=0.5),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
)
