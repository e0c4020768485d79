# Cityscapes' 8 things, augmented as by Mask2Former: short sides of 512 to 2,048 pixels, of that a crop of 512 x 1024.
_base_ = "mmdet::_base_/datasets/cityscapes_instance.py"
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type="InfiniteSampler"),
    batch_sampler=None,
    dataset=dict(
        _delete_=True,
        type="CityscapesDataset",
        data_root="data/cityscapes/",
        ann_file="annotations/instancesonly_filtered_gtFine_train.json",
        data_prefix=dict(img="leftImg8bit/train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(
                type="RandomChoiceResize",
                scales=[1024 * tenths // 10 for tenths in range(5, 21)],
                resize_type="ResizeShortestEdge",
                max_size=4096,
            ),
            dict(
                type="RandomCrop",
                crop_size=(1024, 512),  # width first
                crop_type="absolute",
                recompute_bbox=True,
                allow_negative_crop=True,
            ),
            dict(type="PhotoMetricDistortion"),
            dict(type="RandomFlip", prob=0.5),
            dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
            dict(type="PackDetInputs"),
        ],
    ),
)
