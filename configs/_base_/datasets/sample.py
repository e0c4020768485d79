# The embedded photos of data/sample, see its README. Names of its own, so that it stands beside other datasets.
sample_train = dict(
    type="BaseSegDataset",
    data_root="data/sample",
    data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
    reduce_zero_label=True,
    metainfo=dict(
        classes=(
            "background", "person", "animal", "vehicle", "food and tableware", "furniture and appliance",
            "other object",
        ),
        palette=[
            [120, 120, 120], [220, 20, 60], [255, 200, 0], [0, 90, 255], [0, 200, 60], [160, 60, 220], [0, 220, 220],
        ],
    ),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="RandomResize", scale=(200, 150), ratio_range=(0.8, 1.6), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion", brightness_delta=16, hue_delta=9),
        dict(type="PackSegInputs"),
    ],
)  # fmt: skip
sample_val = dict(
    sample_train,
    data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(200, 150), keep_ratio=True),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="PackSegInputs"),
    ],
)
