# Mask2Former's schedule for large backbones on COCO, 100 epochs in place of 50, in iterations of 16 images.
mask2former_100e = dict(
    param_scheduler=dict(end=737500, milestones=[655556, 710184]),
    train_cfg=dict(max_iters=737500, dynamic_intervals=[(735001, 737500)]),
)
