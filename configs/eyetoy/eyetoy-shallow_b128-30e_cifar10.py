"""The shallow model on CIFAR-10: the 30 epochs of EyeToy's first experiments (docs/architecture.md,
section 16), with AdamW, global average pooling and no clipping.

In 30 epochs it underfits rather than overfits (90 % in training and 89 % in test, as is said there), so that nothing
slows the fit: no dropout, no mixed images; crops, flips, smoothed labels and a little drop path.
"""

_base_ = [
    "../_base_/models/classifier_eyetoy-shallow.py",
    "../_base_/schedules/adamw_50e.py",
    "../_base_/mmpretrain_runtime.py",
    "mmpretrain::_base_/datasets/cifar10_bs16.py",
]
model = dict(
    head=dict(
        num_classes=10,
        loss=dict(_delete_=True, type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
)
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=30)
