"""The same where there is no test batch: 45,000 of the training images train, the other 5,000 validate."""

_base_ = "eyetoy-shallow_b128-30e_cifar10.py"
files = dict(_delete_=True, type="eyetoy_mm.CIFAR10Files", data_root="data/cifar10")
train_dataloader = dict(dataset=dict(indices=45000, pipeline={{_base_.train_pipeline}}, **files))
val_dataloader = dict(
    batch_size=250,
    dataset=dict(files=["data_batch_5"], indices=-5000, pipeline={{_base_.test_pipeline}}, **files),
)
test_dataloader = val_dataloader
