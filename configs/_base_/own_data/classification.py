# What the configs that `eyetoy init` writes for classification have in common: the best checkpoint is kept.
_base_ = ["../schedules/adamw_50e.py", "../mmpretrain_runtime.py"]
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
val_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy")
test_evaluator = val_evaluator
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2, save_best="accuracy/top1"),
)
randomness = dict(seed=0)
