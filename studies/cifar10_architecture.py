"""What classifies better, and does the global stack help, on CIFAR-10 at equal FLOPs?

The mean over the positions against the context token, and against the mean in a model without the global stack, whose
FLOPs went into width.
"""

base = "_base_/cifar10.py"
metric = "accuracy/top1"
image = (32, 32)
seeds = [0, 1, 2]
variants = {
    "pooling": {},
    "context token": {"model.backbone.out_type": "context_token"},
    "no global stack": {
        "model.backbone.arch.global_layers": 0,
        "model.backbone.arch.embed_dims": (36, 64, 144),
        "model.head.in_channels": 144,
    },
}
