# What the configs that `eyetoy init` writes for detection have in common: COCO's figures, the best checkpoint is kept.
_base_ = ["../schedules/adamw_50e.py", "../mmdet_runtime.py"]
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
val_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2, save_best="coco/bbox_mAP"),
)
randomness = dict(seed=0)
