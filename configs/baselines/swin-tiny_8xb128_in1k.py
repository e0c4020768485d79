"""Swin-T on ImageNet-1K, under EyeToy's recipe."""

_base_ = "../eyetoy_imagenet.py"
model = dict(
    backbone=dict(
        _delete_=True, type="mmpretrain.SwinTransformer", arch="tiny", pad_small_map=True, drop_path_rate=0.2
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=768),
)
