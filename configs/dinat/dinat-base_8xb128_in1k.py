"""DiNAT-Base on ImageNet-1K; published: 84.4 %."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").base
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.5), head=dict(in_channels=__size.channels[-1]))
