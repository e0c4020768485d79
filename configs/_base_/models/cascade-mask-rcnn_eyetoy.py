# Cascade Mask R-CNN on EyeToy-tiny with the box heads that the field compares backbones by: 4 convolutions, 1 linear
# layer, GIoU loss; another size replaces the backbone and the neck's `in_channels`.
_base_ = ["mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").tiny
model = dict(
    backbone=dict(_delete_=True, **__size.backbone, drop_path_rate=0.2),
    neck=dict(in_channels=__size.channels),
    roi_head=dict(
        bbox_head=[
            dict(
                type="ConvFCBBoxHead",
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=target_stds),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type="SyncBN"),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for target_stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ]
    ),
)
