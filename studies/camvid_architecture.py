"""Does what EyeToy is made of help, on CamVid at equal FLOPs?

Scales of the head groups, the global stack, its registers, the windows of attention, and the merging of tokens. What a
change takes or gives in FLOPs, other widths give back: 24, 48, 96, 156 channels where every head has windows of 17 at
full resolution, more in stage 3 where attention sees less.
"""

base = "_base_/camvid.py"
metric = "mIoU"
image = (192, 256)
seeds = [0, 1, 2]
arch, channels = "model.backbone.arch", "model.decode_head.in_channels"
variants = {
    "EyeToy": {},
    "single-scale": {
        f"{arch}.multi_scale": False,
        f"{arch}.embed_dims": (24, 48, 96, 156),
        channels: [24, 48, 96, 156],
    },
    "no global stack": {
        f"{arch}.global_layers": 0,
        f"{arch}.embed_dims": (32, 64, 144, 192),
        channels: [32, 64, 144, 192],
    },
    "no registers": {f"{arch}.register_tokens": 0},
    "32 registers": {f"{arch}.register_tokens": 32},
    "windows of 7": {
        f"{arch}.windows": [(7,) * 4, (7,) * 4, (7,) * 4, (7,)],
        f"{arch}.embed_dims": (32, 64, 160, 192),
        channels: [32, 64, 160, 192],
    },
    "no merging": {
        f"{arch}.merging": [(1,) * 4, (1,) * 4, (1,) * 4, (1,)],
        f"{arch}.embed_dims": (28, 56, 112, 168),
        channels: [28, 56, 112, 168],
    },
    "overlapping tokens": {f"{arch}.overlap": True},
    "replicated borders": {f"{arch}.padding_mode": "replicate"},
}
