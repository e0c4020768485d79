# DiNAT_s's published sizes: the channels of their maps, and what they learned on ImageNet-1K, large on ImageNet-22K.
# How to take one: eyetoy.py.
dinat_s = {
    size: dict(
        backbone=dict(type="eyetoy_mm.DiNAT_s", arch=dict(type=size), padding="zeros"),
        init_cfg=dict(type="Pretrained", checkpoint=f"https://shi-labs.com/projects/dinat/checkpoints/{checkpoint}"),
        channels=channels,
    )
    for size, channels, checkpoint in (
        ("tiny", [96, 192, 384, 768], "imagenet1k/dinat_s_tiny_in1k_224.pth"),
        ("small", [96, 192, 384, 768], "imagenet1k/dinat_s_small_in1k_224.pth"),
        ("base", [128, 256, 512, 1024], "imagenet1k/dinat_s_base_in1k_224.pth"),
        ("large", [192, 384, 768, 1536], "imagenet22k/dinat_s_large_in22k_224.pth"),
    )
}
