"""UperNet with DiNAT-Large; published: 54.0 mIoU, 54.9 with flips and scales."""

_base_ = ["../eyetoy/upernet_eyetoy-b_8xb2-160k_ade20k-640x640.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").large
model = dict(
    backbone=dict(
        _delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="ade20k-640", drop_path_rate=0.3
    ),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, weight_decay=0.01),
    paramwise_cfg={{_base_.no_decay}},
)  # no mixed precision
