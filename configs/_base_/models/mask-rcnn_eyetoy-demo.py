# Mask R-CNN on EyeToy-demo for two CPU cores: a quarter of the channels, fewer proposals, anchors for small images, and
# group norm throughout, because batches are small and nothing is pretrained.
_base_ = ["mask-rcnn_eyetoy.py", "../backbones/eyetoy.py"]
__size = _base_.pop("eyetoy").demo
norm_cfg = dict(type="GN", num_groups=16)
model = dict(
    backbone=dict(**__size.backbone, drop_path_rate=0.0),
    neck=dict(in_channels=__size.channels, out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
