"""What classifies better, and do scales and the global stack help, on CIFAR-10 at equal FLOPs?

The mean over the positions against the context token; and against the mean in narrower models of one scale, and in
wider ones without the global stack.
"""

base = "_base_/cifar10.py"
metric = "accuracy/top1"
image = (32, 32)
seeds = [0, 1, 2]
variants = {
    "pooling": {},
    "context token": {"model.backbone.out_type": "context_token"},
    "single-scale": {
        "model.backbone.arch.multi_scale": False,
        "model.backbone.arch.stem_channels": 12,
        "model.backbone.arch.embed_dims": (20, 36, 88),
        "model.head.in_channels": 88,
    },
    "no global stack": {
        "model.backbone.arch.global_layers": 0,
        "model.backbone.arch.embed_dims": (36, 64, 144),
        "model.head.in_channels": 144,
    },
    "no registers": {
        "model.backbone.arch.register_tokens": 0,
        "model.backbone.arch.embed_dims": (32, 64, 132),
        "model.head.in_channels": 132,
    },
    "32 registers": {
        "model.backbone.arch.register_tokens": 32,
        "model.backbone.arch.embed_dims": (28, 60, 116),
        "model.head.in_channels": 116,
    },
    "windows of 7": {
        "model.backbone.arch.windows": [(7,) * 4, (7,) * 4, (7,)],
        "model.backbone.arch.embed_dims": (36, 72, 152),
        "model.head.in_channels": 152,
    },
    "no merging": {
        "model.backbone.arch.merging": [(1,) * 4, (1,) * 4, (1,)],
        "model.backbone.arch.embed_dims": (24, 52, 108),
        "model.head.in_channels": 108,
    },
}
