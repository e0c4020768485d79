# NAT's published sizes: the channels of their maps, and what they learned on ImageNet-1K.
# How to take one: eyetoy.py.
nat = {
    size: dict(
        backbone=dict(type="eyetoy_mm.NAT", arch=dict(type=size), padding="zeros"),
        init_cfg=dict(type="Pretrained", checkpoint=checkpoint),
        channels=channels,
    )
    for size, channels, checkpoint in (
        ("mini", [64, 128, 256, 512], "https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth"),
        ("tiny", [64, 128, 256, 512], "https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth"),
        ("small", [96, 192, 384, 768], "https://shi-labs.com/projects/nat/checkpoints/CLS/nat_small.pth"),
        ("base", [128, 256, 512, 1024], "https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth"),
    )
}
