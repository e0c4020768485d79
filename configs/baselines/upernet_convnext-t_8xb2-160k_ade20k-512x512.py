"""UperNet with ConvNeXt-T, under EyeToy's recipe."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.ConvNeXt",
        arch="tiny",
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        drop_path_rate=0.4,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
)
