"""The demo's Mask R-CNN on all 452 training images of the nuclei instead of the 85 crops that come with the project."""

_base_ = "../sample/mask-rcnn_eyetoy-demo_nuclei.py"
data_root = "data/nuclei-all"
train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file="annotations/train.json", data_prefix=dict(img="train"))
)
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file="annotations/val.json", data_prefix=dict(img="val")))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f"{data_root}/annotations/val.json")
test_evaluator = val_evaluator
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, end=9, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=9, val_interval=9)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
