"""DiNAT-Tiny on ImageNet-1K; published: 82.7 %."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").tiny
model = dict(backbone=__size.backbone, head=dict(in_channels=__size.channels[-1]))
