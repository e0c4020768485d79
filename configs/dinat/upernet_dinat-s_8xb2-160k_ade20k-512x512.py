"""UperNet with DiNAT-Small; published: 48.9 mIoU, 49.9 with flips and scales."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="small",
        dilations="ade20k",
        drop_path_rate=0.5,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_small_in1k_224.pth",
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
