"""ViT-S (DeiT-S) on ImageNet-1K, under EyeToy's recipe."""

_base_ = "../eyetoy_imagenet.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.VisionTransformer",
        arch="deit-small",
        img_size=224,
        patch_size=16,
        out_type="cls_token",
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=384),
)
