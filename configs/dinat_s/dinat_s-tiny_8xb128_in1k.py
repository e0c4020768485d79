"""DiNAT_s-Tiny on ImageNet-1K; published: 81.8 %."""

_base_ = ["../nat/nat-mini_8xb128_in1k.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").tiny
model = dict(backbone=__size.backbone, head=dict(in_channels=__size.channels[-1]))
