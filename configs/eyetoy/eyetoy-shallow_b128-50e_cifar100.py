"""The shallow model on CIFAR-100: 50 epochs, and mixed images besides CIFAR-10's recipe."""

_base_ = [
    "../_base_/models/classifier_eyetoy-shallow.py",
    "../_base_/schedules/adamw_50e.py",
    "../_base_/mmpretrain_runtime.py",
    "mmpretrain::_base_/datasets/cifar100_bs16.py",
]
model = dict(
    head=dict(
        num_classes=100,
        loss=dict(_delete_=True, type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
train_dataloader = dict(batch_size=128)
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator
