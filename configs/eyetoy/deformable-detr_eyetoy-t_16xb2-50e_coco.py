"""Deformable DETR with EyeToy-tiny: 50 epochs of COCO, 32 images a step (16 GPUs x 2); maps of strides 8 to 64.

The backbone learns at a tenth of the rate, for weights that it starts from: model.backbone.init_cfg.
"""

_base_ = [
    "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "../_base_/backbones/eyetoy.py",
    "../_base_/schedules/backbone_tenth.py",
]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels[1:]),
)
optim_wrapper = _base_.pop("backbone_tenth")
optim_wrapper.paramwise_cfg.custom_keys.update(  # where it looks is learned at a tenth of the rate, too
    sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1)
)
custom_imports = dict(imports=["eyetoy_mm"])  # before mmdet: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckDetDataHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
