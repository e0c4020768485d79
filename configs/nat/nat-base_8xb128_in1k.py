"""NAT-Base on ImageNet-1K; published: 84.3 %."""

_base_ = "nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(arch="base", drop_path_rate=0.5), head=dict(in_channels=1024))
