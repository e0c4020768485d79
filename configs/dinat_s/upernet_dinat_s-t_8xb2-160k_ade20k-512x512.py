"""UperNet with DiNAT_s-Tiny; published: 46.0 mIoU, 47.4 with flips and scales."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="ade20k", drop_path_rate=0.3),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
)
