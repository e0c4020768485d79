# What the configs that `eyetoy init` writes for segmentation have in common: epochs, mIoU, the best checkpoint is kept.
_base_ = ["../schedules/adamw_50e.py", "../mmseg_runtime.py"]
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
val_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=10),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", max_keep_ckpts=2, save_best="mIoU"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
randomness = dict(seed=0)
