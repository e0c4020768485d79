"""EyeToy beside other backbones on CIFAR-10, at equal FLOPs.

Images are enlarged to 64x64, for NAT's stem has a stride of 4: three stages at strides 4, 8 and 16, ViT with patches
of 8 pixels. All classify by the mean over the positions, ViT by its class token. Widths and depths of the others are
chosen for EyeToy's FLOPs. DiNAT is not among them: with one block in each stage it is NAT. The learning rate is the
better one of two for each of them (cifar10_rates.py).
"""

base = "_base_/cifar10.py"
metric = "accuracy/top1"
image = (64, 64)
seeds = [0, 1, 2]
larger = [dict(type="Resize", scale=64), dict(type="PackInputs")]
recipe = {
    "optim_wrapper.optimizer.lr": 5e-4,
    "train_dataloader.dataset.pipeline": [
        dict(type="RandomCrop", crop_size=32, padding=4),
        dict(type="RandomFlip", prob=0.5, direction="horizontal"),
        *larger,
    ],
    "val_dataloader.dataset.pipeline": larger,
    "test_dataloader.dataset.pipeline": larger,
    "test_pipeline": larger,
}
eyetoy = dict(embed_dims=(48, 96, 192), stem_stride=4, stem_channels=None)
nat = dict(arch=None, embed_dims=64, depths=(1, 1, 1), num_heads=(1, 2, 4), mlp_ratio=2, out_type="avg_featmap")
swin = dict(embed_dims=50, depths=[1, 1, 1], num_heads=[1, 2, 4])
convnext = dict(depths=[1, 1, 1], channels=[76, 152, 304])
vit = dict(embed_dims=96, num_layers=7, num_heads=3, feedforward_channels=240)
last = dict(out_indices=(2,))
channels = "model.head.in_channels"
variants = {
    "EyeToy": {"model.backbone.arch": eyetoy, channels: 192},
    "EyeToy, weights by group": {
        "model.backbone.arch": {**eyetoy, "init": "group_xavier_normal"},
        channels: 192,
    },
    "NAT": {"model.backbone": dict(_delete_=True, type="eyetoy_mm.NAT", **nat), channels: 256},
    "Swin": {
        "model.backbone": dict(
            _delete_=True, type="mmpretrain.SwinTransformer", arch=swin, pad_small_map=True, drop_path_rate=0.0, **last
        ),
        "model.neck": dict(type="GlobalAveragePooling"),
        channels: 200,
    },
    "ConvNeXt": {
        "model.backbone": dict(_delete_=True, type="mmpretrain.ConvNeXt", arch=convnext, **last),
        channels: 304,
    },
    "ViT": {
        "model.backbone": dict(_delete_=True, type="mmpretrain.VisionTransformer", arch=vit, patch_size=8, img_size=64),
        channels: 96,
    },
}
