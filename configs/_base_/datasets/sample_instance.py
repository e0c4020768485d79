# The embedded photos of data/sample with boxes and masks of COCO's 80 categories, small. Names of its own, so that
# it stands beside other datasets.
sample_train = dict(
    data_root="data/sample",
    ann_file="annotations/instances_train.json",
    data_prefix=dict(img="images/training"),
    filter_cfg=dict(filter_empty_gt=True, min_size=8),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="RandomResize", scale=(320, 240), ratio_range=(0.8, 1.25), keep_ratio=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackDetInputs"),
    ],
)
sample_val = dict(
    data_root="data/sample",
    ann_file="annotations/instances_val.json",
    data_prefix=dict(img="images/validation"),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(320, 240), keep_ratio=True),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
    ],
)
