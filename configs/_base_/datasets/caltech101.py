# Caltech-101 in 128-pixel crops, as the lists that tools/split_classes.py writes into meta/ say.
_base_ = "caltech256.py"
data_preprocessor = dict(num_classes=101)
train_dataloader = dict(dataset=dict(data_root="data/caltech-101", data_prefix="101_ObjectCategories"))
val_dataloader = dict(dataset=dict(data_root="data/caltech-101", data_prefix="101_ObjectCategories"))
test_dataloader = val_dataloader
