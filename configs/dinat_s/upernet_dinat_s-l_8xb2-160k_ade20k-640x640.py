"""UperNet with DiNAT_s-Large; published: 53.4 mIoU, 54.6 with flips and scales."""

_base_ = ["../dinat/upernet_dinat-l_8xb2-160k_ade20k-640x640.py", "../_base_/backbones/dinat_s.py"]
__size = _base_.pop("dinat_s").large
pretrained = __size.init_cfg.checkpoint
model = dict(backbone=dict(**__size.backbone, init_cfg=__size.init_cfg))
