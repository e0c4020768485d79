"""DiNAT_s-Large at 384: 30 epochs from ImageNet-22K; published: 87.4 %."""

_base_ = "../dinat/dinat-large_8xb64_in1k-384px.py"
model = dict(
    backbone=dict(
        type="eyetoy_mm.DiNAT_s",
        init_cfg=dict(
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth"
        ),
    )
)
