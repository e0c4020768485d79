"""DiNAT_s-Base on ImageNet-1K; published: 83.8 %."""

_base_ = "../nat/nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(type="eyetoy_mm.DiNAT_s", arch="base", drop_path_rate=0.5), head=dict(in_channels=1024))
