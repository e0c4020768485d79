"""DiNAT_s-Large at 384: 30 epochs from ImageNet-22K; published: 87.4 %."""

_base_ = ["../dinat/dinat-large_8xb64_in1k-384px.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").large
model = dict(backbone=dict(**__size.backbone, init_cfg=__size.init_cfg))
