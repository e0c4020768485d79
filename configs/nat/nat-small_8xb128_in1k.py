"""NAT-Small on ImageNet-1K; published: 83.7 %."""

_base_ = ["nat-mini_8xb128_in1k.py", "../_base_/backbones/nat.py"]
__size = _base_.pop("nat").small
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.3), head=dict(in_channels=__size.channels[-1]))
