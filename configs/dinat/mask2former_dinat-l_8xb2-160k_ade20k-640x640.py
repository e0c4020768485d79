"""Mask2Former with DiNAT-Large, windows of 11, on ADE20K, crops of 640; published: 58.1 mIoU with flips and scales."""

_base_ = [
    "mmseg::mask2former/mask2former_swin-b-in1k-384x384-pre_8xb2-160k_ade20k-640x640.py",
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
