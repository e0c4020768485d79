"""UperNet with DiNAT_s-Base; published: 49.4 mIoU, 50.2 with flips and scales."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT_s",
        arch="base",
        dilations="ade20k",
        drop_path_rate=0.3,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_s_base_in1k_224.pth",
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
