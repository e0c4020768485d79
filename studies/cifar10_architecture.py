"""What classifies better, and do scales and the global stack help, on CIFAR-10 at equal FLOPs?"""

base = "_base_/cifar10.py"
metric = "accuracy/top1"
image = (32, 32)
seeds = [0, 1, 2]
variants = {
    "pooling": {},
    "context token": {"model.backbone.out_type": "context_token"},
    "single-scale": {"model.backbone.arch.multi_scale": False},
    "no global stack": {"model.backbone.arch.global_layers": 0},
}
