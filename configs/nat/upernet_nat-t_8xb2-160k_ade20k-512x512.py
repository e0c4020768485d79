"""UperNet with NAT-Tiny; published: 47.1 mIoU, 48.4 with flips and scales."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch="tiny",
        drop_path_rate=0.3,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint="https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth"),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
