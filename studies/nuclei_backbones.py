"""EyeToy beside other backbones in a detector of cell nuclei, Mask R-CNN from scratch, at equal FLOPs.

All with four stages at strides 4 to 32. Widths and depths of the others are chosen for EyeToy's FLOPs; those of the
heads, with 1,000 boxes and 100 masks, are the same in all and part of the count.
"""

base = "mask-rcnn_eyetoy-demo_nuclei"
metric = "coco/segm_mAP_50"
image = (448, 448)
seeds = [0, 1, 2]
epochs = 12
recipe = {
    "train_cfg.max_epochs": epochs,
    "train_cfg.val_interval": epochs,
    "param_scheduler.1.end": epochs,
    "default_hooks.checkpoint.interval": 1,
}
maps = dict(out_indices=(0, 1, 2, 3))
nat = dict(arch=None, embed_dims=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), mlp_ratio=4)
swin = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
convnext = dict(depths=[2, 2, 4, 1], channels=[32, 64, 128, 256])
pyramid = {"model.neck.in_channels": [32, 64, 128, 256]}
variants = {
    "EyeToy": {},
    "EyeToy, weights by group": {"model.backbone.arch.init": "group_xavier_normal"},
    "NAT": {"model.backbone": dict(_delete_=True, type="eyetoy_mm.NAT", **nat), **pyramid},
    "DiNAT": {"model.backbone": dict(_delete_=True, type="eyetoy_mm.DiNAT", **nat), **pyramid},
    "Swin": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.SwinTransformer", arch=swin, pad_small_map=True, drop_path_rate=0.0, **maps
        ),
        **pyramid,
    },
    "ConvNeXt": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.ConvNeXt", arch=convnext, gap_before_final_norm=False, **maps
        ),
        **pyramid,
    },
}
