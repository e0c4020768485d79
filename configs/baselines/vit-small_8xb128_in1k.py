"""ViT-S (DeiT-S) on ImageNet-1K, under EyeToy's recipe."""

_base_ = ["../eyetoy_imagenet.py", "../_base_/backbones/baselines.py"]
__size = _base_.pop("baselines").vit_small
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, img_size=224, out_type="cls_token", drop_path_rate=0.1),
    head=dict(in_channels=__size.channels[-1]),
)
