"""Mask2Former with EyeToy-tiny: COCO's instances, 50 epochs of 16 images (8 GPUs x 2) of 1024x1024, jittered.

The backbone learns at a tenth of the rate, for weights that it starts from: model.backbone.init_cfg.
"""

_base_ = [
    "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
    "../_base_/backbones/eyetoy.py",
    "../_base_/schedules/backbone_tenth.py",
]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.3),
    panoptic_head=dict(in_channels=__size.channels),
)
optim_wrapper = _base_.pop("backbone_tenth")
custom_imports = dict(imports=["eyetoy_mm"])  # before mmdet: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckDetDataHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img="train2017/")))  # panoptic maps are not needed
val_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img="val2017/")))
test_dataloader = val_dataloader
