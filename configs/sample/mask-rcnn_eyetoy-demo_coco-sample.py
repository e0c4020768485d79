"""The same on some images of COCO itself: `--data-root` is a folder with annotations/, train2017/ and val2017/."""

_base_ = "mask-rcnn_eyetoy-demo_sample.py"
coco = "data/coco_sample"
train_dataloader = dict(
    dataset=dict(data_root=coco, ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017"))
)
val_dataloader = dict(
    dataset=dict(data_root=coco, ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017"))
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f"{coco}/annotations/instances_val2017.json")
test_evaluator = val_evaluator
