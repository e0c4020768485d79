"""Does what EyeToy is made of help, on CamVid at equal FLOPs?

Scales of the head groups, the global stack, its registers, the windows of attention, and the merging of tokens.
"""

base = "_base_/camvid.py"
metric = "mIoU"
image = (360, 480)
seeds = [0, 1, 2]
variants = {
    "EyeToy": {},
    "single-scale": {"model.backbone.arch.multi_scale": False},
    "no global stack": {"model.backbone.arch.global_layers": 0},
    "no registers": {"model.backbone.arch.register_tokens": 0},
    "32 registers": {"model.backbone.arch.register_tokens": 32},
    "windows of 7": {"model.backbone.arch.windows": [(7,) * 4, (7,) * 4, (7,) * 4, (7,)]},
    "no merging": {"model.backbone.arch.merging": [(1,) * 4, (1,) * 4, (1,) * 4, (1,)]},
    "overlapping tokens": {"model.backbone.arch.overlap": True},
}
