"""UperNet with NAT-Base; published: 48.5 mIoU, 49.7 with flips and scales."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="base",
        drop_path_rate=0.5,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth"),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
