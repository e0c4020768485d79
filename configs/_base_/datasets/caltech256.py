# Caltech-256 in 128-pixel crops, as the lists that tools/split_classes.py writes into meta/ say; 101 changes the names.
data_preprocessor = dict(num_classes=256, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=128, crop_ratio_range=(0.25, 1.0), backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=146, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=128),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(
        type="eyetoy_mm.ClassFolders",
        data_root="data/caltech256",
        data_prefix="256_ObjectCategories",
        ann_file="meta/train.txt",
        classes="meta/classes.txt",
        pipeline=train_pipeline,
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(
        type="eyetoy_mm.ClassFolders",
        data_root="data/caltech256",
        data_prefix="256_ObjectCategories",
        ann_file="meta/val.txt",
        classes="meta/classes.txt",
        pipeline=test_pipeline,
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
