"""DiNAT_s-Small on ImageNet-1K; published: 83.5 %."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").small
model = dict(backbone=dict(**__size.backbone, drop_path_rate=0.3), head=dict(in_channels=__size.channels[-1]))
