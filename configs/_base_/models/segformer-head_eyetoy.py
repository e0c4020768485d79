# SegFormer's head of 1x1 convolutions on a small EyeToy; its maps have strides 2, 4, 8 and 16, for thin things in small
# images.
_base_ = "mmseg::_base_/models/segformer_mit-b0.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.EyeToy",
        arch=dict(
            type="demo", embed_dims=(32, 64, 128, 192), depths=(1, 2, 3, 2), num_heads=(1, 2, 2, 6), stem_stride=2
        ),
        drop_path_rate=0.1,
    ),
    decode_head=dict(in_channels=[32, 64, 128, 192], channels=64, num_classes=11),
)
