"""Mask R-CNN that finds the cell nuclei of data/nuclei after six minutes on two CPU cores.

Images are seen at 1.75 times their size, in crops. `eyetoy demo detect` trains it in two processes, two images each.
"""

_base_ = [
    "../_base_/models/mask-rcnn_eyetoy-demo_nuclei.py",
    "../_base_/datasets/nuclei_instance.py",
    "../_base_/schedules/adamw_1x.py",
    "../_base_/mmdet_runtime.py",
    "mmdet::_base_/datasets/coco_instance.py",
]
train_dataloader = dict(batch_size=2, num_workers=1, dataset={{_base_.nuclei_train}})
val_dataloader = dict(num_workers=1, dataset={{_base_.nuclei_val}})
test_dataloader = val_dataloader
test_pipeline = {{_base_.nuclei_val.pipeline}}
val_evaluator = dict(ann_file="data/nuclei/annotations/instances_val.json", proposal_nums=(100, 300, 1000))
test_evaluator = val_evaluator
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, end=30, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30, val_interval=30)
default_hooks = dict(logger=dict(interval=21), checkpoint=dict(interval=30, max_keep_ckpts=1))
randomness = dict(seed=0)
