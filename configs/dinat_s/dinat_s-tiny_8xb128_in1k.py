"""DiNAT_s-Tiny on ImageNet-1K; published: 81.8 %."""

_base_ = "../nat/nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(type="eyetoy_mm.DiNAT_s", arch="tiny"), head=dict(in_channels=768))
