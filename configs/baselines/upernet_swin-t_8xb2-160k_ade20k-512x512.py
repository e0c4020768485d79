"""UperNet with Swin-T, under EyeToy's recipe."""

_base_ = ["../upernet_eyetoy_ade20k.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").swin_tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, **__size.maps, drop_path_rate=0.3),
    decode_head=dict(in_channels=__size.channels),
)
