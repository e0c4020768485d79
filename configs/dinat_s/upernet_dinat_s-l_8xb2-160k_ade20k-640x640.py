"""UperNet with DiNAT_s-Large; published: 53.4 mIoU, 54.6 with flips and scales."""

_base_ = "../dinat/upernet_dinat-l_8xb2-160k_ade20k-640x640.py"
pretrained = "https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth"
model = dict(backbone=dict(type="eyetoy_mm.DiNAT_s", init_cfg=dict(checkpoint=pretrained)))
