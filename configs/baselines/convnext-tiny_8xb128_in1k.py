"""ConvNeXt-T on ImageNet-1K, under EyeToy's recipe."""

_base_ = "../eyetoy_imagenet.py"
model = dict(
    backbone=dict(_delete_=True, type="mmpretrain.ConvNeXt", arch="tiny", drop_path_rate=0.1),
    head=dict(in_channels=768),
)
