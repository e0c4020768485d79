"""DiNAT-Large on ImageNet-1K; published: 86.6 % after ImageNet-22K."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").large
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.35), head=dict(in_channels=__size.channels[-1]))
