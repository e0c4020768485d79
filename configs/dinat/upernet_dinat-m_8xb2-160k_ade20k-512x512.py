"""UperNet with DiNAT-Mini; published: 45.8 mIoU, 47.2 with flips and scales."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="mini",
        dilations="ade20k",
        drop_path_rate=0.2,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_mini_in1k_224.pth",
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
