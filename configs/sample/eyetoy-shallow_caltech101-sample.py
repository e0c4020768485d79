"""The shallow model on a folder of images per class: `--data-root` has train/<class>/ and test/<class>/."""

_base_ = "../eyetoy/eyetoy-shallow_b64-50e_caltech101.py"
model = dict(head=dict(num_classes=12), train_cfg=None)
data_preprocessor = dict(num_classes=12)
folders = dict(data_root="data/caltech101_sample", ann_file="", classes=None)
train_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(data_prefix="train", **folders))
val_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(data_prefix="test", **folders))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=30, val_interval=5)
default_hooks = dict(logger=dict(interval=7))
custom_hooks = [*_base_.custom_hooks, dict(type="eyetoy_mm.EvaluateUntrainedHook")]
