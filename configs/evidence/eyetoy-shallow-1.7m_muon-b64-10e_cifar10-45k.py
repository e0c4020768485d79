"""CIFAR-10 with 1.69 M parameters in 10 epochs of 45,000 images, with Muon: beside AdamW's, tokens for small maps.

The maps have 16 x 16 and 8 x 8 positions, which the windows of `shallow` see all of at once. Here tokens merge 1 to 4
positions per axis and overlap, which mixes neighbors as a convolution does. timm's Muon has AdamW for norms, biases.
"""

_base_ = "eyetoy-shallow-1.7m_b64-10e_cifar10-45k.py"
__windows, __merging = ((7, 7, 5, 4), (7, 5, 4, 2)), ((1, 2, 2, 4), (1, 1, 2, 4))
model = dict(backbone=dict(arch=dict(windows=__windows, merging=__merging, overlap=True)))
__muon = dict(_delete_=True, type="timm.optim.Muon", lr=4e-3, weight_decay=0.05, nesterov=True, betas=(0.9, 0.99))
optim_wrapper = dict(optimizer=__muon)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=200),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.01, by_epoch=False, begin=2816, end=7040),
]
