"""UperNet with a plain ViT-S, its maps resized to a pyramid, under EyeToy's recipe."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").vit_small
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, **__size.maps, img_size=512, drop_path_rate=0.1),
    neck=dict(type="mmseg.MultiLevelNeck", in_channels=__size.channels, out_channels=384, scales=[4, 2, 1, 0.5]),
    decode_head=dict(in_channels=__size.channels),
)
