"""The demo on some pairs of ADE20K itself, 150 classes: `--data-root` is a folder with images/ and annotations/."""

_base_ = "upernet_eyetoy-demo_sample.py"
model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
data_root = "data/ade20k_sample"
train_dataloader = dict(dataset=dict(type="ADE20KDataset", data_root=data_root, metainfo=None))
val_dataloader = dict(dataset=dict(type="ADE20KDataset", data_root=data_root, metainfo=None))
test_dataloader = val_dataloader
