# RetinaNet on EyeToy-tiny: one stage, no proposals. It starts at stride 8, so that the first stage has no output.
_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels[1:], start_level=0),
)
