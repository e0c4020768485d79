"""The demo's UperNet on all 452 training images of the nuclei, uncropped, instead of the 85 crops of the project.

`python tools/make_nuclei.py path/to/nuclei data/nuclei-whole --whole` makes the folder.
"""

_base_ = "../sample/upernet_eyetoy-demo_nuclei.py"
data_root = "data/nuclei-whole"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=50, end=1500),
]
train_cfg = dict(max_iters=1500, val_interval=500)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=100))
