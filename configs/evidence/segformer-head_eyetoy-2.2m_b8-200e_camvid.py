"""CamVid from scratch with 2.15 M parameters: 200 epochs of 8 crops of 288x384, rare classes weigh more."""

_base_ = [
    "../_base_/models/segformer-head_eyetoy.py",
    "../_base_/schedules/adamw_50e.py",
    "../_base_/mmseg_runtime.py",
    "../_base_/datasets/camvid.py",
]
weights = [0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 2.0, 0.87, 2.65, 3.92]  # root of (median / pixels), in training
# A mean over the crops' pixels, written as a sum: mmseg's own mean looks up the weight of the ignored label and fails.
loss = dict(type="CrossEntropyLoss", class_weight=weights, reduction="sum", loss_weight=1 / (8 * 288 * 384))
model = dict(data_preprocessor=dict(size=(288, 384)), decode_head=dict(loss_decode=loss))
optim_wrapper = dict(type="OptimWrapper")
train_cfg = dict(max_epochs=200, val_interval=5)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="mIoU"),
)
custom_hooks = [
    dict(type="eyetoy_mm.CheckSegLabelsHook"),
    dict(type="eyetoy_mm.StopOnNonFiniteHook"),
    dict(type="EMAHook", momentum=1e-3, update_buffers=True),
]
randomness = dict(seed=0)
