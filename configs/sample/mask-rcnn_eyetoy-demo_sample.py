"""Mask R-CNN small enough to train on the embedded photos on two CPU cores in minutes, with COCO's evaluation."""

_base_ = [
    "../_base_/models/mask-rcnn_eyetoy-demo.py",
    "../_base_/datasets/sample_instance.py",
    "../_base_/schedules/adamw_1x.py",
    "../_base_/mmdet_runtime.py",
    "mmdet::_base_/datasets/coco_instance.py",
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset={{_base_.sample_train}})
val_dataloader = dict(num_workers=1, dataset={{_base_.sample_val}})
test_dataloader = val_dataloader
test_pipeline = {{_base_.sample_val.pipeline}}
val_evaluator = dict(ann_file="data/sample/annotations/instances_val.json")
test_evaluator = val_evaluator
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, end=50, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50, val_interval=25)
default_hooks = dict(logger=dict(interval=12), checkpoint=dict(interval=25, max_keep_ckpts=1))
custom_hooks = [*_base_.custom_hooks, dict(type="eyetoy_mm.EvaluateUntrainedHook")]
randomness = dict(seed=0)
