"""DiNAT-Large at 384: 30 epochs from ImageNet-22K, linear to zero; published: 87.4 %."""

_base_ = [
    "../_base_/models/classifier_eyetoy.py",
    "../_base_/schedules/adamw_300e.py",
    "../_base_/mmpretrain_runtime.py",
    "../_base_/backbones/dinat.py",
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_384.py",
]
__size = _base_.pop("dinat").large
pretrained = __size.init_cfg.checkpoint
model = dict(
    backbone=dict(
        _delete_=True,
        **__size.backbone,
        dilations="imagenet-384",
        out_type="avg_featmap",
        drop_path_rate=0.35,
        init_cfg=__size.init_cfg,
    ),
    head=dict(in_channels=__size.channels[-1]),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=5e-5, weight_decay=1e-10))
param_scheduler = [dict(type="PolyLR", power=1.0, by_epoch=True, begin=0, end=30, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=30)
