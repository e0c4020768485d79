"""Mask2Former with DiNAT-Large, windows of 11, on Cityscapes; published: 84.5 mIoU with flips and scales."""

_base_ = [
    "mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py",
    "../_base_/backbones/dinat.py",
    "../_base_/schedules/backbone_tenth.py",
]
__size = _base_.pop("dinat").large_k11
model = dict(
    backbone=dict(
        _delete_=True, **__size.backbone, init_cfg=__size.init_cfg, dilations="mask2former", drop_path_rate=0.3
    ),
    decode_head=dict(in_channels=__size.channels),
)
optim_wrapper = _base_.pop("backbone_tenth")
custom_imports = dict(imports=["eyetoy_mm"])  # before mmdet and mmseg: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckSegLabelsHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
