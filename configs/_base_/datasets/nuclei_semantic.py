# The embedded images of data/nuclei with a label for each pixel: background or nucleus. Names of its own, so that it
# stands beside other datasets.
nuclei_train = dict(
    type="BaseSegDataset",
    data_root="data/nuclei",
    data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
    img_suffix=".png",
    metainfo=dict(classes=("background", "nucleus"), palette=[[40, 40, 80], [0, 220, 120]]),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(256, 256), ratio_range=(0.8, 1.4), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(192, 192)),
        dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
        dict(type="PackSegInputs"),
    ],
)
nuclei_val = dict(
    nuclei_train,
    data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
)
