"""UperNet with EyeToy-tiny, tested by sliding a window of the training crop over the image."""

_base_ = "../upernet_eyetoy_ade20k.py"
model = dict(test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)))
