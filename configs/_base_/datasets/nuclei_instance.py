# The embedded images of data/nuclei, 256 x 256 pixels each, with boxes and masks of nuclei. Names of its own, so that
# it stands beside other datasets.
nuclei_train = dict(
    data_root="data/nuclei",
    ann_file="annotations/instances_train.json",
    data_prefix=dict(img="images/training"),
    metainfo=dict(classes=("nucleus",), palette=[(0, 220, 120)]),
    filter_cfg=dict(filter_empty_gt=True, min_size=8),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="AutoContrast", prob=1.0),  # many are dark
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="RandomResize", scale=(448, 448), ratio_range=(0.8, 1.4), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(256, 256), recompute_bbox=True, allow_negative_crop=False),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(2, 2), by_mask=True),
        dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
        dict(type="PackDetInputs"),
    ],
)
nuclei_val = dict(
    data_root="data/nuclei",
    ann_file="annotations/instances_val.json",
    data_prefix=dict(img="images/validation"),
    metainfo=dict(classes=("nucleus",), palette=[(0, 220, 120)]),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="AutoContrast", prob=1.0),  # many are dark
        dict(type="Resize", scale_factor=1.75, keep_ratio=True),  # of any image, so that nuclei keep their size
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
    ],
)
