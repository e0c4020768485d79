"""DiNAT_s-Large on ImageNet-1K; published: 86.5 % after ImageNet-22K."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").large
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.35), head=dict(in_channels=__size.channels[-1]))
