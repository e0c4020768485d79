"""EyeToy-base on ImageNet-1K: tiny's recipe, with more stochastic depth."""

_base_ = "../eyetoy_imagenet.py"
model = dict(backbone=dict(arch=dict(type="base"), drop_path_rate=0.5), head=dict(in_channels=768))
