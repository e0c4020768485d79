"""NAT-Tiny on ImageNet-1K; published: 83.2 %."""

_base_ = "nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(arch="tiny"))
