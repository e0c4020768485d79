# mmpretrain's backbones that EyeToy stands beside: what each needs to give maps, and the channels of these.
# How to take one: eyetoy.py.
baselines = dict(
    swin_tiny=dict(
        backbone=dict(type="mmpretrain.SwinTransformer", arch="tiny", pad_small_map=True),
        maps=dict(out_indices=(0, 1, 2, 3)),
        channels=[96, 192, 384, 768],
    ),
    convnext_tiny=dict(
        backbone=dict(type="mmpretrain.ConvNeXt", arch="tiny"),
        maps=dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
        channels=[96, 192, 384, 768],
    ),
    vit_small=dict(
        backbone=dict(type="mmpretrain.VisionTransformer", arch="deit-small", patch_size=16),
        maps=dict(out_type="featmap", out_indices=(2, 5, 8, 11)),
        channels=[384] * 4,
    ),
)
