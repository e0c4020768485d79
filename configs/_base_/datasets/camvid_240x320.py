# CamVid's training pipeline with smaller crops, for two CPU cores. A name of its own: it stands beside camvid.py.
small_crops = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(240, 320), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
