# A linear classifier on EyeToy-tiny's context token; another size replaces the backbone and `in_channels`.
_base_ = "../backbones/eyetoy.py"
__size = _base_.pop("eyetoy").tiny
model = dict(
    type="ImageClassifier",
    backbone=dict(**__size.backbone, out_type="context_token", drop_path_rate=0.2),
    head=dict(
        type="LinearClsHead", num_classes=1000, in_channels=__size.channels[-1], loss=dict(type="CrossEntropyLoss")
    ),
)
