"""UperNet with DiNAT-Small; published: 48.9 mIoU, 49.9 with flips and scales."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").small
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="ade20k", drop_path_rate=0.5),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
)
