"""DiNAT-Large at 384 with windows of 11: 30 epochs from ImageNet-22K; published: 87.5 %."""

_base_ = ["dinat-large_8xb64_in1k-384px.py", "../_base_/backbones/dinat.py"]
__size = _base_.pop("dinat").large_k11
model = dict(backbone=dict(dilations="imagenet", kernel_size=11, init_cfg=__size.init_cfg))
