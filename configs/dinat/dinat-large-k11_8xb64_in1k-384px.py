"""DiNAT-Large at 384 with windows of 11: 30 epochs from ImageNet-22K; published: 87.5 %."""

_base_ = "dinat-large_8xb64_in1k-384px.py"
model = dict(
    backbone=dict(
        dilations="imagenet",
        kernel_size=11,
        init_cfg=dict(
            checkpoint="https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_large_in22k_224_11x11interp.pth"
        ),
    )
)
