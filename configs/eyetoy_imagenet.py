"""EyeToy-tiny on ImageNet-1K: 224x224, 300 epochs of mixup and CutMix, 1,024 images a step (8 GPUs x 128), AMP, EMA.

RandAugment and random erasing come with the dataset's file. EMA's decay is 0.9999; its weights are what is evaluated.
"""

_base_ = [
    "_base_/models/classifier_eyetoy.py",
    "_base_/schedules/adamw_300e.py",
    "_base_/mmpretrain_runtime.py",
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py",
]
model = dict(
    head=dict(loss=dict(_delete_=True, type="LabelSmoothLoss", label_smooth_val=0.1, mode="original")),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
train_dataloader = dict(batch_size=128)
custom_hooks = [*_base_.custom_hooks, dict(type="EMAHook", momentum=1e-4, priority="ABOVE_NORMAL")]
auto_scale_lr = dict(enable=False, base_batch_size=1024)
