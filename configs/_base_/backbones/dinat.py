# DiNAT's published sizes: the channels of their maps, and what they learned on ImageNet-1K, large on ImageNet-22K.
# How to take one: eyetoy.py.
dinat = {
    size: dict(
        backbone=dict(type="eyetoy_mm.DiNAT", arch=dict(type=size), padding="zeros"),
        init_cfg=dict(type="Pretrained", checkpoint=f"https://shi-labs.com/projects/dinat/checkpoints/{checkpoint}"),
        channels=channels,
    )
    for size, channels, checkpoint in (
        ("mini", [64, 128, 256, 512], "imagenet1k/dinat_mini_in1k_224.pth"),
        ("tiny", [64, 128, 256, 512], "imagenet1k/dinat_tiny_in1k_224.pth"),
        ("small", [96, 192, 384, 768], "imagenet1k/dinat_small_in1k_224.pth"),
        ("base", [128, 256, 512, 1024], "imagenet1k/dinat_base_in1k_224.pth"),
        ("large", [192, 384, 768, 1536], "imagenet22k/dinat_large_in22k_224.pth"),
    )
}
# With windows of 11, as with Mask2Former: the same weights, position biases resized by the authors. Their configs name
# the file of windows of 7, whose biases do not fit.
dinat["large_k11"] = dict(
    backbone=dict(type="eyetoy_mm.DiNAT", arch=dict(type="large", kernel_size=11), padding="zeros"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_large_in22k_224_11x11interp.pth",
    ),
    channels=dinat["large"]["channels"],
)
