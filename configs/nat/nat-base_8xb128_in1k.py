"""NAT-Base on ImageNet-1K; published: 84.3 %."""

_base_ = ["nat-mini_8xb128_in1k.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").base
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.5), head=dict(in_channels=__size.channels[-1]))
