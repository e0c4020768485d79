"""CIFAR-10 with 1.55 M parameters in 22 epochs of 45,000 images: the recipe of the 10 epochs with Muon, a coarser stem.

The stem halves the map by itself, which leaves the first stage 16 x 16 positions: as much is learned in a step, and a
step takes less time. Tokens merge at most 2 positions per axis. A batch is 2 processes' 64 images.
"""

_base_ = "eyetoy-shallow-1.7m_muon-b64-10e_cifar10-45k.py"
__windows, __merging = ((7, 7, 5, 5), (7, 7, 4, 4)), ((1, 1, 2, 2), (1, 1, 2, 2))
model = dict(backbone=dict(arch=dict(windows=__windows, merging=__merging, stem_stride=2, stem_channels=None)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=200),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.01, by_epoch=False, begin=1500, end=7744),
]
train_cfg = dict(max_iters=7744, val_interval=704)
