# A linear classifier on EyeToy-tiny's context token; a larger size changes `arch`, and the head's `in_channels`.
model = dict(
    type="ImageClassifier",
    backbone=dict(type="eyetoy_mm.EyeToy", arch=dict(type="tiny"), out_type="context_token", drop_path_rate=0.2),
    head=dict(type="LinearClsHead", num_classes=1000, in_channels=576, loss=dict(type="CrossEntropyLoss")),
)
