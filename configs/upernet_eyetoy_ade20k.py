"""UperNet with EyeToy-tiny on ADE20K: 512x512 crops, 160k iterations of 16 images (8 GPUs x 2), AMP."""

_base_ = [
    "_base_/models/upernet_eyetoy.py",
    "_base_/schedules/adamw_160k.py",
    "_base_/mmseg_runtime.py",
    "mmseg::_base_/datasets/ade20k.py",
]
model = dict(data_preprocessor=dict(size=(512, 512)))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
