# Mask2Former's augmentation on ADE20K: short sides of 320 to 1,280 pixels, and of that a crop of 640 x 640.
crops_640 = [
    dict(
        type="RandomChoiceResize",
        scales=[64 * times for times in range(5, 21)],
        resize_type="ResizeShortestEdge",
        max_size=2560,
    ),
    dict(
        type="RandomCrop",
        crop_size=(640, 640),
        crop_type="absolute",
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type="PhotoMetricDistortion"),
    dict(type="RandomFlip", prob=0.5),
]
