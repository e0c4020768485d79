# Mask2Former's schedule away from COCO: AdamW 1e-4, the backbone a tenth of it, gradients clipped to a norm of 0.01,
# no warm-up, 160,000 iterations. With the runtime, which counts them in place of epochs.
_base_ = ["../mmdet_runtime.py", "backbone_tenth.py"]
__tenth = _base_.pop("backbone_tenth")
__tenth.paramwise_cfg.pop("_delete_")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    **__tenth,
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=160000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5000, max_keep_ckpts=3))
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs x 2 images
