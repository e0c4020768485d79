"""What classifies: the mean over the positions, in place of the context token."""

_base_ = "../eyetoy_imagenet.py"
model = dict(backbone=dict(out_type="avg_featmap"))
