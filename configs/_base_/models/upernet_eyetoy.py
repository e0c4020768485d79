# UperNet on EyeToy-tiny; a larger size changes `arch`, and the heads' `in_channels` to its embed_dims.
_base_ = "mmseg::_base_/models/upernet_swin.py"
model = dict(
    backbone=dict(_delete_=True, type="eyetoy_mm.EyeToy", arch=dict(type="tiny"), drop_path_rate=0.3),
    decode_head=dict(in_channels=[64, 128, 384, 576], num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
)
