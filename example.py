auto_scale_lr = dict(base_batch_size=16, enable=False)
backbone_norm_cfg = dict(_scope_="mmseg", requires_grad=True, type="LN")
crop_size = (
    512,
    512,
)
custom_hooks = [
    dict(type="eyetoy_mm.CheckSegLabelsHook"),
    dict(type="eyetoy_mm.EvaluateUntrainedHook"),
]
custom_imports = dict(
    imports=[
        "eyetoy_mm",
    ]
)
data_preprocessor = dict(
    _scope_="mmseg",
    bgr_to_rgb=True,
    mean=[
        123.675,
        116.28,
        103.53,
    ],
    pad_val=0,
    seg_pad_val=255,
    std=[
        58.395,
        57.12,
        57.375,
    ],
    type="SegDataPreProcessor",
)
data_root = "data/ade/ADEChallengeData2016"
dataset_type = "ADE20KDataset"
default_hooks = dict(
    checkpoint=dict(
        _scope_="mmseg", by_epoch=False, interval=200, max_keep_ckpts=2, save_best="mIoU", type="CheckpointHook"
    ),
    logger=dict(_scope_="mmseg", interval=10, log_metric_by_epoch=False, type="LoggerHook"),
    param_scheduler=dict(_scope_="mmseg", type="ParamSchedulerHook"),
    sampler_seed=dict(_scope_="mmseg", type="DistSamplerSeedHook"),
    timer=dict(_scope_="mmseg", type="IterTimerHook"),
    visualization=dict(_scope_="mmseg", type="SegVisualizationHook"),
)
default_scope = "mmseg"
env_cfg = dict(
    cudnn_benchmark=True, dist_cfg=dict(backend="nccl"), mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0)
)
img_ratios = [
    0.5,
    0.75,
    1.0,
    1.25,
    1.5,
    1.75,
]
load_from = None
log_level = "INFO"
log_processor = dict(by_epoch=False)
model = dict(
    _scope_="mmseg",
    auxiliary_head=dict(
        align_corners=False,
        channels=32,
        concat_input=False,
        dropout_ratio=0.1,
        in_channels=128,
        in_index=2,
        loss_decode=dict(loss_weight=0.4, type="CrossEntropyLoss", use_sigmoid=False),
        norm_cfg=dict(requires_grad=True, type="SyncBN"),
        num_classes=7,
        num_convs=1,
        type="FCNHead",
    ),
    backbone=dict(arch=dict(type="demo"), drop_path_rate=0.0, type="eyetoy_mm.EyeToy"),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        pad_val=0,
        seg_pad_val=255,
        size=(
            128,
            128,
        ),
        std=[
            58.395,
            57.12,
            57.375,
        ],
        type="SegDataPreProcessor",
    ),
    decode_head=dict(
        align_corners=False,
        channels=64,
        dropout_ratio=0.1,
        in_channels=[
            32,
            64,
            128,
            192,
        ],
        in_index=[
            0,
            1,
            2,
            3,
        ],
        loss_decode=dict(loss_weight=1.0, type="CrossEntropyLoss", use_sigmoid=False),
        norm_cfg=dict(requires_grad=True, type="SyncBN"),
        num_classes=7,
        pool_scales=(
            1,
            2,
            3,
            6,
        ),
        type="UPerHead",
    ),
    pretrained=None,
    test_cfg=dict(mode="whole"),
    train_cfg=dict(),
    type="EncoderDecoder",
)
no_decay = dict(
    custom_keys=dict(
        cls_token=dict(decay_mult=0.0),
        context_token=dict(decay_mult=0.0),
        norm=dict(decay_mult=0.0),
        pos_embed=dict(decay_mult=0.0),
        register_tokens=dict(decay_mult=0.0),
        relative_position_bias_table=dict(decay_mult=0.0),
        rpb=dict(decay_mult=0.0),
    )
)
norm_cfg = dict(_scope_="mmseg", requires_grad=True, type="SyncBN")
optim_wrapper = dict(
    optimizer=dict(
        betas=(
            0.9,
            0.999,
        ),
        lr=0.002,
        type="AdamW",
        weight_decay=0.01,
    ),
    paramwise_cfg=dict(
        custom_keys=dict(
            cls_token=dict(decay_mult=0.0),
            context_token=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
            pos_embed=dict(decay_mult=0.0),
            register_tokens=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            rpb=dict(decay_mult=0.0),
        )
    ),
    type="OptimWrapper",
)
optimizer = dict(_scope_="mmseg", lr=0.01, momentum=0.9, type="SGD", weight_decay=0.0005)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=30, start_factor=0.01, type="LinearLR"),
    dict(begin=30, by_epoch=False, end=800, eta_min=0.0, power=1.0, type="PolyLR"),
]
randomness = dict(seed=0)
resume = False
sample_train = dict(
    data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
    data_root="data/sample",
    metainfo=dict(
        classes=(
            "background",
            "person",
            "animal",
            "vehicle",
            "food and tableware",
            "furniture and appliance",
            "other object",
        ),
        palette=[
            [
                120,
                120,
                120,
            ],
            [
                220,
                20,
                60,
            ],
            [
                255,
                200,
                0,
            ],
            [
                0,
                90,
                255,
            ],
            [
                0,
                200,
                60,
            ],
            [
                160,
                60,
                220,
            ],
            [
                0,
                220,
                220,
            ],
        ],
    ),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(reduce_zero_label=True, type="LoadAnnotations"),
        dict(
            keep_ratio=True,
            ratio_range=(
                0.8,
                1.6,
            ),
            scale=(
                200,
                150,
            ),
            type="RandomResize",
        ),
        dict(
            cat_max_ratio=0.75,
            crop_size=(
                128,
                128,
            ),
            type="RandomCrop",
        ),
        dict(prob=0.5, type="RandomFlip"),
        dict(brightness_delta=16, hue_delta=9, type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ],
    reduce_zero_label=True,
    type="BaseSegDataset",
)
sample_val = dict(
    data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    data_root="data/sample",
    metainfo=dict(
        classes=(
            "background",
            "person",
            "animal",
            "vehicle",
            "food and tableware",
            "furniture and appliance",
            "other object",
        ),
        palette=[
            [
                120,
                120,
                120,
            ],
            [
                220,
                20,
                60,
            ],
            [
                255,
                200,
                0,
            ],
            [
                0,
                90,
                255,
            ],
            [
                0,
                200,
                60,
            ],
            [
                160,
                60,
                220,
            ],
            [
                0,
                220,
                220,
            ],
        ],
    ),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(
            keep_ratio=True,
            scale=(
                200,
                150,
            ),
            type="Resize",
        ),
        dict(reduce_zero_label=True, type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ],
    reduce_zero_label=True,
    type="BaseSegDataset",
)
test_cfg = dict(_scope_="mmseg", type="TestLoop")
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _scope_="mmseg",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        data_root="data/sample",
        metainfo=dict(
            classes=(
                "background",
                "person",
                "animal",
                "vehicle",
                "food and tableware",
                "furniture and appliance",
                "other object",
            ),
            palette=[
                [
                    120,
                    120,
                    120,
                ],
                [
                    220,
                    20,
                    60,
                ],
                [
                    255,
                    200,
                    0,
                ],
                [
                    0,
                    90,
                    255,
                ],
                [
                    0,
                    200,
                    60,
                ],
                [
                    160,
                    60,
                    220,
                ],
                [
                    0,
                    220,
                    220,
                ],
            ],
        ),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(
                keep_ratio=True,
                scale=(
                    200,
                    150,
                ),
                type="Resize",
            ),
            dict(reduce_zero_label=True, type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
        reduce_zero_label=True,
        type="BaseSegDataset",
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(_scope_="mmseg", shuffle=False, type="DefaultSampler"),
)
test_evaluator = dict(
    _scope_="mmseg",
    iou_metrics=[
        "mIoU",
    ],
    type="IoUMetric",
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        keep_ratio=True,
        scale=(
            200,
            150,
        ),
        type="Resize",
    ),
    dict(reduce_zero_label=True, type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_cfg = dict(_scope_="mmseg", max_iters=800, type="IterBasedTrainLoop", val_interval=200)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _scope_="mmseg",
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        data_root="data/sample",
        metainfo=dict(
            classes=(
                "background",
                "person",
                "animal",
                "vehicle",
                "food and tableware",
                "furniture and appliance",
                "other object",
            ),
            palette=[
                [
                    120,
                    120,
                    120,
                ],
                [
                    220,
                    20,
                    60,
                ],
                [
                    255,
                    200,
                    0,
                ],
                [
                    0,
                    90,
                    255,
                ],
                [
                    0,
                    200,
                    60,
                ],
                [
                    160,
                    60,
                    220,
                ],
                [
                    0,
                    220,
                    220,
                ],
            ],
        ),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(reduce_zero_label=True, type="LoadAnnotations"),
            dict(
                keep_ratio=True,
                ratio_range=(
                    0.8,
                    1.6,
                ),
                scale=(
                    200,
                    150,
                ),
                type="RandomResize",
            ),
            dict(
                cat_max_ratio=0.75,
                crop_size=(
                    128,
                    128,
                ),
                type="RandomCrop",
            ),
            dict(prob=0.5, type="RandomFlip"),
            dict(brightness_delta=16, hue_delta=9, type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
        reduce_zero_label=True,
        type="BaseSegDataset",
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(_scope_="mmseg", shuffle=True, type="InfiniteSampler"),
)
train_pipeline = [
    dict(_scope_="mmseg", type="LoadImageFromFile"),
    dict(_scope_="mmseg", reduce_zero_label=True, type="LoadAnnotations"),
    dict(
        _scope_="mmseg",
        keep_ratio=True,
        ratio_range=(
            0.5,
            2.0,
        ),
        scale=(
            2048,
            512,
        ),
        type="RandomResize",
    ),
    dict(
        _scope_="mmseg",
        cat_max_ratio=0.75,
        crop_size=(
            512,
            512,
        ),
        type="RandomCrop",
    ),
    dict(_scope_="mmseg", prob=0.5, type="RandomFlip"),
    dict(_scope_="mmseg", type="PhotoMetricDistortion"),
    dict(_scope_="mmseg", type="PackSegInputs"),
]
tta_model = dict(_scope_="mmseg", type="SegTTAModel")
tta_pipeline = [
    dict(_scope_="mmseg", backend_args=None, type="LoadImageFromFile"),
    dict(
        _scope_="mmseg",
        transforms=[
            [
                dict(keep_ratio=True, scale_factor=0.5, type="Resize"),
                dict(keep_ratio=True, scale_factor=0.75, type="Resize"),
                dict(keep_ratio=True, scale_factor=1.0, type="Resize"),
                dict(keep_ratio=True, scale_factor=1.25, type="Resize"),
                dict(keep_ratio=True, scale_factor=1.5, type="Resize"),
                dict(keep_ratio=True, scale_factor=1.75, type="Resize"),
            ],
            [
                dict(direction="horizontal", prob=0.0, type="RandomFlip"),
                dict(direction="horizontal", prob=1.0, type="RandomFlip"),
            ],
            [
                dict(type="LoadAnnotations"),
            ],
            [
                dict(type="PackSegInputs"),
            ],
        ],
        type="TestTimeAug",
    ),
]
val_cfg = dict(_scope_="mmseg", type="ValLoop")
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _scope_="mmseg",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        data_root="data/sample",
        metainfo=dict(
            classes=(
                "background",
                "person",
                "animal",
                "vehicle",
                "food and tableware",
                "furniture and appliance",
                "other object",
            ),
            palette=[
                [
                    120,
                    120,
                    120,
                ],
                [
                    220,
                    20,
                    60,
                ],
                [
                    255,
                    200,
                    0,
                ],
                [
                    0,
                    90,
                    255,
                ],
                [
                    0,
                    200,
                    60,
                ],
                [
                    160,
                    60,
                    220,
                ],
                [
                    0,
                    220,
                    220,
                ],
            ],
        ),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(
                keep_ratio=True,
                scale=(
                    200,
                    150,
                ),
                type="Resize",
            ),
            dict(reduce_zero_label=True, type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
        reduce_zero_label=True,
        type="BaseSegDataset",
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(_scope_="mmseg", shuffle=False, type="DefaultSampler"),
)
val_evaluator = dict(
    _scope_="mmseg",
    iou_metrics=[
        "mIoU",
    ],
    type="IoUMetric",
)
vis_backends = [
    dict(_scope_="mmseg", type="LocalVisBackend"),
]
visualizer = dict(
    _scope_="mmseg",
    name="visualizer",
    type="SegLocalVisualizer",
    vis_backends=[
        dict(type="LocalVisBackend"),
    ],
)
