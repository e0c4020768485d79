# The same on EyeToy-shallow, for small images: global average pooling, as it has no context token.
_base_ = ["classifier_eyetoy.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").shallow
model = dict(
    backbone=dict(**__size.backbone, out_type="avg_featmap", drop_path_rate=0.1),
    head=dict(in_channels=__size.channels[-1]),
)
