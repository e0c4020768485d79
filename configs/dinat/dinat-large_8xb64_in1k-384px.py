"""DiNAT-Large at 384: 30 epochs from ImageNet-22K, linear to zero; published: 87.4 %."""

_base_ = [
    "../_base_/models/classifier_eyetoy.py",
    "../_base_/schedules/adamw_300e.py",
    "../_base_/mmpretrain_runtime.py",
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_384.py",
]
pretrained = "https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_large_in22k_224.pth"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.DiNAT",
        arch="large",
        dilations="imagenet-384",
        out_type="avg_featmap",
        drop_path_rate=0.35,
        padding="zeros",
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    head=dict(in_channels=1536),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=5e-5, weight_decay=1e-10))
param_scheduler = [dict(type="PolyLR", power=1.0, by_epoch=True, begin=0, end=30, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=30)
