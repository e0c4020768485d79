"""The demo's UperNet on all 452 training images of the nuclei, uncropped, instead of the 85 crops of the project.

`python tools/make_nuclei.py path/to/nuclei data/nuclei-whole --whole` makes the folder. It is trained on crops of 192 x
192 and predicts in such windows: the encoder adds the position to each token, and never saw one beyond a crop.
"""

_base_ = "../sample/upernet_eyetoy-demo_nuclei.py"
data_root = "data/nuclei-whole"
model = dict(test_cfg=dict(mode="slide", crop_size=(192, 192), stride=(128, 128)))
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=50, end=1500),
]
train_cfg = dict(max_iters=1500, val_interval=500)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=100))
