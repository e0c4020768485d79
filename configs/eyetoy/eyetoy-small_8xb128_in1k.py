"""EyeToy-small on ImageNet-1K: tiny's recipe, with more stochastic depth."""

_base_ = "../eyetoy_imagenet.py"
model = dict(backbone=dict(arch=dict(type="small"), drop_path_rate=0.3), head=dict(in_channels=640))
