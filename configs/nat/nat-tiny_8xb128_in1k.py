"""NAT-Tiny on ImageNet-1K; published: 83.2 %."""

_base_ = ["nat-mini_8xb128_in1k.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").tiny
model = dict(backbone=__size.backbone, head=dict(in_channels=__size.channels[-1]))
