"""Configs that are wrong: each case changes one of ours as ``--cfg-options`` would, and checks it as ``train.py`` does.

Whatever a case raises is what a user reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.config_checks import check_config, config_findings
from eyetoy_mm.paths import package_file

SEG, DET = "sample/upernet_eyetoy-demo_sample", "sample/mask-rcnn_eyetoy-demo_sample"
CLS = "eyetoy/eyetoy-shallow_b128-30e_cifar10"

EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "a size that does not exist": (SEG, {"model.backbone.arch": "demmo"}),
    "an argument that the backbone does not take": (SEG, {"model.backbone.frozen_stage": 1}),
    "channels that the backbone does not have": (SEG, {"model.decode_head.in_channels": [64, 128, 384, 640]}),
    "text for a number of iterations": (SEG, {"train_cfg.max_iters": "many"}),
    "a key below a string": (SEG, {"model.decode_head.type.x": 1}),
    "a place in what is no list": (SEG, {"model.decode_head.0.num_classes": 3}),
    "a place beyond a list": (SEG, {"custom_hooks.7.interval": 3}),
    "a misspelt section": (SEG, {"optim_wraper.optimizer.lr": 1e-3}),
    "a misspelt key of a section without a class": (DET, {"model.test_cfg.rcnn.score_th": 0.1}),
    "a variable of the config file": (SEG, {"data_root": "my/data"}),
    "a misspelt part of the model": (SEG, {"model.bakbone.arch": "small"}),
    "a misspelt head": (SEG, {"model.decode_head.type": "UPrHead"}),
    "a model without its scope": (SEG, {"model.backbone.type": "EyeToy"}),
    "a head of another toolbox": (SEG, {"model.decode_head.type": "RPNHead"}),
    "a misspelt norm": (SEG, {"model.decode_head.norm_cfg.type": "BNN"}),
    "an argument that the norm does not take": (SEG, {"model.decode_head.norm_cfg.epss": 1e-3}),
    "a misspelt loss": (CLS, {"model.head.loss.type": "LabelSmothLoss"}),
    "a weight of a loss as text": (SEG, {"model.decode_head.loss_decode.loss_weight": "full"}),
    "no channels": (SEG, {"model.decode_head.channels": None}),
    "too many channels": (SEG, {"model.decode_head.channels": 10**7}),
    "a misspelt assigner": (DET, {"model.train_cfg.rpn.assigner.type": "MaxIoUAsigner"}),
    "an argument that the assigner does not take": (DET, {"model.train_cfg.rpn.assigner.pos_iou": 0.7}),
    "channels of a box head": (DET, {"model.roi_head.bbox_head.in_channels": 128}),
    "strides of anchors that the maps do not have": (
        DET,
        {"model.rpn_head.anchor_generator.strides": [8, 16, 32, 64, 128]},
    ),
    "strides of regions that the maps do not have": (
        DET,
        {"model.roi_head.mask_roi_extractor.featmap_strides": [8, 16, 32, 64]},
    ),
    "a learning rate as text": (SEG, {"optim_wrapper.optimizer.lr": "fast"}),
    "a misspelt optimizer": (SEG, {"optim_wrapper.optimizer.type": "AdmW"}),
    "a misspelt optimizer section": (SEG, {"optim_wrapper.optimizr.lr": 1}),
    "a batch of one with batch norm over one pixel": (SEG, {"train_dataloader.batch_size": 1}),
    "workers that are kept, and none": (
        SEG,
        {"train_dataloader.num_workers": 0, "train_dataloader.persistent_workers": True},
    ),
    "batches fetched ahead, and no workers": (
        SEG,
        {
            "train_dataloader.num_workers": 0,
            "train_dataloader.persistent_workers": False,
            "train_dataloader.prefetch_factor": 2,
        },
    ),
    "an argument that a data loader does not take": (SEG, {"train_dataloader.drop_lats": True}),
    "a misspelt data set": (SEG, {"train_dataloader.dataset.type": "Ade20KDataset"}),
    "an argument that the data set does not take": (SEG, {"train_dataloader.dataset.reduce_zero_lable": True}),
    "a misspelt transform": (SEG, {"train_dataloader.dataset.pipeline.1.type": "LoadAnnotation"}),
    "an argument that the transform does not take": (SEG, {"train_dataloader.dataset.pipeline.0.colour": 1}),
    "a pipeline that is no list": (SEG, {"train_dataloader.dataset.pipeline": "train_pipeline"}),
    "another number of classes": (SEG, {"model.decode_head.num_classes": 150}),
    "a top k above the number of classes": (CLS, {"val_evaluator.topk": (1, 50)}),
    "no proposal is kept": (DET, {"model.test_cfg.rpn.max_per_img": 0}),
    "everything dropped": (SEG, {"model.decode_head.dropout_ratio": 1.0}),
    "scores that leave out what mean precision counts": (DET, {"model.test_cfg.rcnn.score_thr": 0.5}),
    "overlaps of objects and of background reversed": (
        DET,
        {"model.train_cfg.rpn.assigner.pos_iou_thr": 0.3, "model.train_cfg.rpn.assigner.neg_iou_thr": 0.7},
    ),
    "no score is high enough": (DET, {"model.test_cfg.rcnn.score_thr": 1.0}),
    "no detection is scored": (DET, {"val_evaluator.proposal_nums": [0, 0, 0]}),
    "no box is sampled": (DET, {"model.train_cfg.rcnn.sampler.num": 0}),
    "a mode of prediction that the model has not": (SEG, {"model.test_cfg.mode": "slide_flip"}),
    "suppression by a name that does not exist": (DET, {"model.test_cfg.rcnn.nms.type": "nmss"}),
    "suppression by another name of its threshold": (DET, {"model.test_cfg.rcnn.nms": dict(type="nms", iou_thr=0.5)}),
    "a metric that writes, and no folder": (SEG, {"val_evaluator.format_only": True}),
    "the best of what is only written": (
        SEG,
        {
            "val_evaluator.format_only": True,
            "val_evaluator.output_dir": "maps",
            "default_hooks.checkpoint.save_best": "mIoU",
        },
    ),
    "a rate that follows a metric that nobody gives": (
        CLS,
        {"param_scheduler": [dict(type="ReduceOnPlateauLR", monitor="accuracy/top2", rule="greater")]},
    ),
    "a schedule shorter than training": (
        CLS,
        {"param_scheduler": [dict(type="OneCycleLR", eta_max=0.1, total_steps=3)]},
    ),
    "one file for all checkpoints": (SEG, {"default_hooks.checkpoint.filename_tmpl": "last.pth"}),
    "checkpoints below a file": (SEG, {"default_hooks.checkpoint.out_dir": f"{__file__}/checkpoints"}),
    "published parts that no checkpoint has": (SEG, {"default_hooks.checkpoint.published_keys": ["weights"]}),
    "a pipeline of the last epochs, misspelt": (
        DET,
        {
            "custom_hooks": [
                dict(type="PipelineSwitchHook", switch_epoch=2, switch_pipeline=[dict(type="LoadImageFromFil")])
            ]
        },
    ),
    "mosaics to end where there are none": (DET, {"custom_hooks": [dict(type="YOLOXModeSwitchHook")]}),
    "no window between windows": (SEG, {"model.test_cfg": dict(mode="slide", crop_size=(64, 64), stride=(96, 64))}),
    "no image of a class is right": (CLS, {"val_evaluator.topk": 0}),
    "a metric of another toolbox": (SEG, {"val_evaluator.type": "mmdet.CocoMetric"}),
    "a metric that is not computed": (SEG, {"val_evaluator.iou_metrics": ["mIou"]}),
    "the best by a metric that nobody gives": (SEG, {"default_hooks.checkpoint.save_best": "mIOU"}),
    "an argument that a checkpoint does not take": (SEG, {"default_hooks.checkpoint.intervall": 3}),
    "a misspelt hook": (SEG, {"custom_hooks.0.type": "EMAHok"}),
    "a loop that counts otherwise": (SEG, {"train_cfg.type": "EpochBasedTrainLoop"}),
    "a misspelt argument of the loop": (SEG, {"train_cfg.max_iter": 10}),
    "a schedule by epochs in a loop of iterations": (SEG, {"param_scheduler.1.by_epoch": True}),
    "a schedule that begins when training has ended": (CLS, {"train_cfg.max_epochs": 2}),
    "a schedule that ends before it begins": (DET, {"param_scheduler.0.end": -3}),
    "a level of logging that does not exist": (SEG, {"log_level": "LOUD"}),
    "a misspelt seed": (SEG, {"randomness.sed": 1}),
    "a clip that no function takes": (SEG, {"optim_wrapper.clip_grad": dict(max_norn=1)}),
    "a clip below zero": (DET, {"optim_wrapper.clip_grad": dict(max_norm=-1)}),
    "a misspelt rule for parameters": (SEG, {"optim_wrapper.paramwise_cfg": dict(norm_decay_mul=0)}),
    "a misspelt multiplier": (CLS, {"optim_wrapper.paramwise_cfg": dict(custom_keys=dict(norm=dict(decay=0)))}),
    "a rule for parameters that is a number": (CLS, {"optim_wrapper.paramwise_cfg": dict(custom_keys=dict(norm=0))}),
    "a loop of another section": (SEG, {"val_cfg.type": "TestLoop"}),
    "an interval that is no number": (SEG, {"train_cfg.val_interval": float("nan")}),
    "milestones as text": (DET, {"param_scheduler.1.milestones": "8,11"}),
    "a learning rate of 0": (SEG, {"optim_wrapper.optimizer.lr": 0.0}),
    "images divided by nothing": (SEG, {"model.data_preprocessor.std": [0, 0, 0]}),
    "the model's preprocessor where the section is read": (CLS, {"model.data_preprocessor.std": [1, 1, 1]}),
    "classes by an older name": (DET, {"train_dataloader.dataset.metainfo": dict(CLASSES=("cat",), _delete_=True)}),
    "the smallest image as text": (DET, {"train_dataloader.dataset.filter_cfg.min_size": "32"}),
    "a list for a folder": (DET, {"train_dataloader.dataset.data_prefix": ["images"]}),
    "no pipeline": (CLS, {"train_dataloader.dataset.pipeline": []}),
    "one entry of a list": (SEG, {"train_dataloader.dataset.pipeline.0": "LoadImage"}),
    "a dict in the place of a list": (SEG, {"custom_hooks": dict(type="EMAHook")}),
    "modules to import, too late": (SEG, {"custom_imports": dict(imports=["mine"])}),
    "a misspelt priority": (SEG, {"custom_hooks.0.priority": "SOON"}),
    "a way to start processes that does not exist": (SEG, {"env_cfg.mp_cfg.mp_start_method": "thread"}),
    "no seed at all": (SEG, {"randomness": None}),
    "a folder that is a number": (SEG, {"work_dir": 5}),
    "to go on, in words": (SEG, {"resume": "yes"}),
    "epochs of a sampler that never ends": (CLS, {"train_dataloader.sampler.type": "InfiniteSampler"}),
    "images in the order of the data set": (CLS, {"train_dataloader.sampler.shuffle": False}),
    "two batches of each epoch, as in a trial": (CLS, {"train_dataloader.num_batch_per_epoch": 2}),
    "no metric": (CLS, {"val_evaluator": []}),
    "schedules that nothing steps": (CLS, {"default_hooks.param_scheduler": None}),
    "the worst for the best": (
        CLS,
        {"default_hooks.checkpoint.save_best": "accuracy/top1", "default_hooks.checkpoint.rule": "less"},
    ),
    "a rate that falls while accuracy rises": (
        CLS,
        {"param_scheduler": [dict(type="ReduceOnPlateauLR", monitor="accuracy/top1")]},
    ),
    "no patience": (CLS, {"custom_hooks": [dict(type="EarlyStoppingHook", monitor="accuracy/top1", patience=0)]}),
    "a rate that ends below zero": (CLS, {"param_scheduler": [dict(type="CosineAnnealingLR", T_max=9, eta_min=-1e-5)]}),
    "a rate that rises again": (CLS, {"param_scheduler": [dict(type="CosineAnnealingLR", T_max=9, end=30)]}),
    "a lowest rate above the rate": (CLS, {"param_scheduler": [dict(type="PolyLR", eta_min=0.5)]}),
    "a rate below zero of some parameters": (CLS, {"optim_wrapper.paramwise_cfg": dict(bias_lr_mult=-1.0)}),
    "a rule without the setting that it multiplies": (
        CLS,
        {
            "optim_wrapper.optimizer": dict(type="AdamW", lr=1e-3, _delete_=True),
            "optim_wrapper.paramwise_cfg": dict(norm_decay_mult=0.0),
        },
    ),
    "a misspelt part of the model in a rule": (
        CLS,
        {"optim_wrapper.paramwise_cfg": dict(custom_keys=dict(bakbone=dict(decay_mult=0.0)))},
    ),
    "betas reversed": (
        CLS,
        {"optim_wrapper.optimizer": dict(type="AdamW", lr=1e-3, weight_decay=0.05, betas=(0.99, 0.9), _delete_=True)},
    ),
    "a division by zero": (CLS, {"optim_wrapper.optimizer": dict(type="AdamW", lr=1e-3, eps=0, _delete_=True)}),
    "momentum above one": (CLS, {"optim_wrapper.optimizer": dict(type="SGD", lr=0.1, momentum=9, _delete_=True)}),
    "gradients of half a step": (CLS, {"optim_wrapper.accumulative_counts": 2.5}),
    "a loss of negative weight": (CLS, {"model.head.loss.loss_weight": -1.0}),
    "anchors of no size": (DET, {"model.rpn_head.anchor_generator.scales": [0]}),
    "a word for what happens on a full disk": (SEG, {"on_save_error": "goon"}),
    "learning rates scaled from no batch": (SEG, {"auto_scale_lr": dict(base_batch_size=0)}),
}


def check_edited(config: str, options: dict[str, Any], folder: Path) -> str:
    """Load a config of the package with options, and check it as training does.

    Raises:
        UserError: What is wrong with it.
    """
    loaded = load_config(package_file("configs") / f"{config}.py", options=options, work_dir=str(folder / "work"))
    check_config(loaded, "train", "val")
    told = "; ".join(map(str, config_findings(loaded, "train", "val")))
    return f"runs; told: {told}" if told else "runs"


CASES: dict[str, Callable[[Path], Any]] = {
    name: partial(check_edited, config, options) for name, (config, options) in EDITS.items()
}
