"""Mask R-CNN that finds the cell nuclei of data/nuclei after six minutes on two CPU cores: small crowded objects.

Images are seen at 1.75 times their size, in crops; anchors begin at 16 pixels; there are as many proposals and
detections as an image has nuclei; the mask head, most of the work with so many objects, is two layers deep.
`eyetoy demo detect` trains it in two processes, two images each.
"""

_base_ = [
    "../_base_/models/mask-rcnn_eyetoy-demo.py",
    "../_base_/datasets/nuclei_instance.py",
    "../_base_/schedules/adamw_1x.py",
    "../_base_/mmdet_runtime.py",
    "mmdet::_base_/datasets/coco_instance.py",
]
model = dict(
    neck=dict(num_outs=4),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=28),
        bbox_head=dict(num_classes=1),
        mask_roi_extractor=dict(finest_scale=28),
        mask_head=dict(num_classes=1, num_convs=2),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=400),
        rcnn=dict(sampler=dict(num=96)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=800), rcnn=dict(score_thr=0.01, max_per_img=400)),
)
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
