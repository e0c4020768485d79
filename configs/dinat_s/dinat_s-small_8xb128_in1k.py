"""DiNAT_s-Small on ImageNet-1K; published: 83.5 %."""

_base_ = "../nat/nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(type="eyetoy_mm.DiNAT_s", arch="small", drop_path_rate=0.3), head=dict(in_channels=768))
