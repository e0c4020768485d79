# ADE20K's 100 things and 50 kinds of stuff: mmdet has the validation; its tools/dataset_converters/ade20k2coco.py makes
# the annotations.
_base_ = ["mmdet::_base_/datasets/ade20k_panoptic.py", "crops_640.py"]
__crops = _base_.pop("crops_640")
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ADE20KPanopticDataset",
        data_root="data/ADEChallengeData2016/",
        ann_file="ade20k_panoptic_train.json",
        data_prefix=dict(img="images/training/", seg="ade20k_panoptic_train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadPanopticAnnotations"),
            *__crops,
            dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True, keep_empty=False),
            dict(type="PackDetInputs"),
        ],
    ),
)
