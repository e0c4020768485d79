"""Mask2Former with EyeToy-tiny on ADE20K: 512x512 crops, 160k iterations of 16 images (8 GPUs x 2); needs mmdet.

The backbone learns at a tenth of the rate, for weights that it starts from: model.backbone.init_cfg.
"""

_base_ = [
    "mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py",
    "../_base_/backbones/eyetoy.py",
    "../_base_/schedules/backbone_tenth.py",
]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.3),
    decode_head=dict(in_channels=__size.channels),
)
optim_wrapper = _base_.pop("backbone_tenth")
custom_imports = dict(_delete_=True, imports=["eyetoy_mm"])  # before mmdet and mmseg: supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckSegLabelsHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
