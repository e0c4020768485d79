# COCO with the augmentation of DETR and Sparse R-CNN: sides from 480 to 800 pixels, half of the time of a crop.
_base_ = "mmdet::_base_/datasets/coco_instance.py"
sides = dict(type="RandomChoiceResize", scales=[(side, 1333) for side in range(480, 801, 32)], keep_ratio=True)
crop = [
    dict(type="RandomChoiceResize", scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="RandomChoice", transforms=[[sides], [*crop, sides]]),
            # Of objects that a crop cuts off: slivers of boxes, and boxes without a pixel of the mask.
            dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), by_mask=True, keep_empty=False),
            dict(type="PackDetInputs"),
        ]
    )
)
