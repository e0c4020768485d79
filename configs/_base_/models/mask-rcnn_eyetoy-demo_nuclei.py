# Mask R-CNN on EyeToy-demo for small crowded objects of one class: anchors from 16 pixels, as many proposals and
# detections as an image may have objects, and a mask head, most of the work with so many, of two layers.
_base_ = "mask-rcnn_eyetoy-demo.py"
model = dict(
    neck=dict(num_outs=4),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=28),
        bbox_head=dict(num_classes=1),
        mask_roi_extractor=dict(finest_scale=28),
        mask_head=dict(num_classes=1, num_convs=2),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=400),
        rcnn=dict(sampler=dict(num=96)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=800), rcnn=dict(score_thr=0.01, max_per_img=400)),
)
