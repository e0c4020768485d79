"""UperNet with DiNAT_s-Large; published: 53.4 mIoU, 54.6 with flips and scales."""

_base_ = "../eyetoy/upernet_eyetoy-b_8xb2-160k_ade20k-640x640.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT_s",
        arch="large",
        dilations="ade20k-640",
        drop_path_rate=0.3,
        padding="zeros",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth",
        ),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(_delete_=True, mode="whole"),
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, weight_decay=0.01),
    paramwise_cfg={{_base_.no_decay}},
)  # no mixed precision
