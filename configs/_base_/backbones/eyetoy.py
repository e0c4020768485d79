# EyeToy's sizes and the channels of their maps. A config that lists a file of this folder among its bases takes one
# size out with `__size = _base_.pop(...)`: the table leaves the config, and `__` keeps a name from becoming a key.
eyetoy = {
    size: dict(backbone=dict(type="eyetoy_mm.EyeToy", arch=dict(type=size)), channels=channels)
    for size, channels in (
        ("shallow", [128, 256]),
        ("demo", [32, 64, 128, 192]),
        ("tiny", [64, 128, 384, 576]),
        ("small", [64, 128, 384, 640]),
        ("base", [96, 192, 512, 768]),
    )
}
