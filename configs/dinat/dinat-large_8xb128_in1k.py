"""DiNAT-Large on ImageNet-1K; published: 86.6 % after ImageNet-22K."""

_base_ = "../nat/nat-mini_8xb128_in1k.py"
model = dict(backbone=dict(type="eyetoy_mm.DiNAT", arch="large", drop_path_rate=0.35), head=dict(in_channels=1536))
