"""EyeToy beside other backbones on CamVid from scratch, at equal FLOPs: what is it worth in its demo size?

Four stages at strides 4 to 32 in all but ViT, whose patches of 16 pixels keep one resolution. Widths and depths of the
others are chosen for EyeToy's FLOPs: NAT's and DiNAT's feed-forward networks are 4 times as wide as their
channels, ConvNeXt has 9 blocks, ViT 7. The learning rate is the better one of two for each of them (camvid_rates.py):
5e-4 for EyeToy, 2e-3 for the others, and for EyeToy too where its tokenizers start from weights that count groups.
"""

base = "_base_/camvid.py"
metric = "mIoU"
image = (192, 256)
seeds = [0, 1, 2]
maps = dict(out_indices=(0, 1, 2, 3))
nat = dict(arch=None, embed_dims=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), mlp_ratio=4)
swin = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
convnext = dict(depths=[2, 2, 4, 1], channels=[32, 64, 128, 256])
vit = dict(embed_dims=128, num_layers=7, num_heads=4, feedforward_channels=448)
pyramid = [32, 64, 128, 256]
rate = "optim_wrapper.optimizer.lr"
variants = {
    "EyeToy": {},
    "EyeToy, weights by group": {"model.backbone.arch.init": "group_xavier_normal", rate: 2e-3},
    "NAT": {
        "model.backbone": dict(_delete_=True, type="eyetoy_mm.NAT", **nat),
        "model.decode_head.in_channels": pyramid,
        rate: 2e-3,
    },
    "DiNAT": {
        "model.backbone": dict(_delete_=True, type="eyetoy_mm.DiNAT", **nat),
        "model.decode_head.in_channels": pyramid,
        rate: 2e-3,
    },
    "Swin": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.SwinTransformer", arch=swin, pad_small_map=True, drop_path_rate=0.0, **maps
        ),
        "model.decode_head.in_channels": pyramid,
        rate: 2e-3,
    },
    "ConvNeXt": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.ConvNeXt", arch=convnext, gap_before_final_norm=False, **maps
        ),
        "model.decode_head.in_channels": pyramid,
        rate: 2e-3,
    },
    "ViT": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.VisionTransformer", arch=vit, patch_size=16, img_size=(192, 256),
            out_type="featmap", out_indices=(0, 2, 4, 6),
        ),
        "model.decode_head.in_channels": [128] * 4,
        rate: 2e-3,
    },
}  # fmt: skip
