"""UperNet with EyeToy-base at 640: crops of 640x640, tested in sliding windows, layer-wise learning rate decay."""

_base_ = [
    "../_base_/models/upernet_eyetoy.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/mmseg_runtime.py",
    "../_base_/backbones/eyetoy.py",
    "mmseg::_base_/datasets/ade20k_640x640.py",
]
__size = _base_.pop("eyetoy").base
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(**__size.backbone, drop_path_rate=0.5),
    decode_head=dict(in_channels=__size.channels),
    auxiliary_head=dict(in_channels=__size.channels[2]),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    constructor="eyetoy_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
