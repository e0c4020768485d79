"""Configs that are wrong are told by key, value and remedy before anything is built; those that run are left alone."""

import copy
import random
from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from benchmarks.fuzz_configs import check, random_backbone, random_edit, run_backbone
from benchmarks.trust.configs import CLS, DET, EDITS, SEG
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.config_checks import check_config, config_findings
from eyetoy_mm.engine.config_optimizer import optimizer_findings
from eyetoy_mm.engine.config_options import merge_options
from eyetoy_mm.engine.config_places import nearest
from eyetoy_mm.engine.config_rules import rule_findings
from eyetoy_mm.engine.config_structure import structure_findings
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

TOOLBOXES = {SEG: "mmseg", DET: "mmdet", CLS: "mmpretrain"}


@cache
def loaded(name):
    return load_config(package_file("configs") / f"{name}.py", work_dir="work_dirs/x")


def ready(name):
    pytest.importorskip(TOOLBOXES[name], reason=f"{TOOLBOXES[name]} is not installed")
    return copy.deepcopy(loaded(name))


def told(name, options):
    """What a user reads."""
    config = ready(name)
    with pytest.raises(UserError) as error:
        merge_options(config, options)
        check(config)
    return str(error.value)


MESSAGES = {
    "a size that does not exist": "unknown arch 'demmo'; choose one of shallow, demo",
    "an argument that the backbone does not take": "model.backbone.frozen_stage=1: EyeToy takes no frozen_stage; did",
    "channels that the backbone does not have": "model.decode_head.in_channels=[64, 128, 384, 640] should be [32, 64",
    "text for a number of iterations": "train_cfg.max_iters='many': should be a number, as IterBasedTrainLoop takes it",
    "a key below a string": "model.decode_head.type is 'UPerHead', which has no keys below it",
    "a place in what is no list": "model.decode_head is a dict, not a list",
    "a place beyond a list": "custom_hooks is a list with places 0 to 2",
    "a misspelt section": "nothing reads a section optim_wraper; did you mean optim_wrapper?",
    "a misspelt key of a section without a class": "model.test_cfg.rcnn has no score_th; did you mean score_thr?",
    "a variable of the config file": "data_root='my/data' would change nothing",
    "a misspelt part of the model": "EncoderDecoder takes no bakbone; did you mean backbone?",
    "a misspelt head": "model.decode_head.type='UPrHead': no model of that name is registered. Did you mean UPerHead?",
    "a model without its scope": "Did you mean eyetoy_mm.EyeToy?",
    "a misspelt norm": "model.decode_head.norm_cfg.type='BNN': no model of that name is registered. Did you mean BN?",
    "an argument that the norm does not take": "model.decode_head.norm_cfg.epss=0.001: BN takes no epss",
    "a misspelt loss": "model.head.loss.type='LabelSmothLoss'",
    "a weight of a loss as text": "model.decode_head.loss_decode.loss_weight='full': should be a number",
    "no channels": "model.decode_head: UPerHead cannot be built with in_channels=[32, 64, 128, 192]",
    "too many channels": "model: its weights take",
    "a misspelt assigner": "model.train_cfg.rpn.assigner.type='MaxIoUAsigner': no task util of that name",
    "an argument that the assigner does not take": "model.train_cfg.rpn.assigner.pos_iou=0.7: MaxIoUAssigner takes no",
    "channels of a box head": "model.roi_head: StandardRoIHead, at bbox_head.shared_fcs.0 does not fit",
    "strides of anchors that the maps do not have": "strides=[8, 16, 32, 64, 128]: its maps have the strides [4, 8",
    "strides of regions that the maps do not have": "featmap_strides=[8, 16, 32, 64]: its maps have the strides [4",
    "a learning rate as text": "optim_wrapper.optimizer.lr='fast': should be a number, as AdamW takes it",
    "a misspelt optimizer": "optim_wrapper.optimizer.type='AdmW'",
    "a misspelt optimizer section": "OptimWrapper takes no optimizr; did you mean optimizer?",
    "a batch of one with batch norm over one pixel": "train_dataloader.batch_size=1: model.decode_head (UPerHead",
    "workers that are kept, and none": "train_dataloader.persistent_workers=True: needs num_workers of 1 or more",
    "batches fetched ahead, and no workers": "train_dataloader.prefetch_factor=2: needs num_workers of 1 or more",
    "an argument that a data loader does not take": "a data loader takes no drop_lats; did you mean drop_last?",
    "a misspelt data set": "train_dataloader.dataset.type='Ade20KDataset'",
    "an argument that the data set does not take": "did you mean reduce_zero_label?",
    "a misspelt transform": "train_dataloader.dataset.pipeline.1.type='LoadAnnotation'",
    "an argument that the transform does not take": "pipeline.0.colour=1: LoadImageFromFile takes no colour",
    "a pipeline that is no list": "train_dataloader.dataset.pipeline='train_pipeline': should be a list of dicts",
    "another number of classes": "model.decode_head.num_classes=150: train_dataloader.dataset (BaseSegDataset) has 7",
    "a top k above the number of classes": "val_evaluator.topk=(1, 50): above the number of classes",
    "a metric of another toolbox": "reads the predictions of mmdet, and this is for mmseg",
    "a metric that is not computed": "val_evaluator.iou_metrics='mIou': none of mIoU, mDice, mFscore",
    "the best by a metric that nobody gives": "save_best='mIOU': not what val_evaluator gives; did you mean mIoU?",
    "an argument that a checkpoint does not take": "CheckpointHook takes no intervall; did you mean interval?",
    "a misspelt hook": "custom_hooks.0.type='EMAHok': no hook of that name is registered. Did you mean EMAHook?",
    "a loop that counts otherwise": "train_cfg.max_iters=800: is of IterBasedTrainLoop",
    "a misspelt argument of the loop": "IterBasedTrainLoop takes no max_iter; did you mean max_iters?",
    "a schedule by epochs in a loop of iterations": "param_scheduler.1.by_epoch=True: training counts iterations",
    "a schedule that begins when training has ended": "param_scheduler.1: begins at 2, and training ends after 2",
    "a schedule that ends before it begins": "end should be larger than begin, but got begin=0, end=-3",
    "a level of logging that does not exist": "log_level='LOUD': should be one of DEBUG, INFO",
    "a misspelt seed": "randomness has no sed; did you mean seed?",
    "a clip that no function takes": "clip_grad.max_norn=1: clip_grad_norm_ takes no max_norn; did you mean max_norm?",
    "a clip below zero": "optim_wrapper.clip_grad.max_norm=-1: should be a number above 0",
    "a misspelt rule for parameters": "paramwise_cfg.norm_decay_mul=0: nothing reads it; did you mean norm_decay_mult?",
    "a misspelt multiplier": "custom_keys.norm.decay=0: neither a multiplier nor an optimizer's setting; did",
    "a rule for parameters that is a number": "custom_keys.norm=0: should be a dict",
    "a loop of another section": "val_cfg.type='TestLoop': is a loop of test_cfg",
    "an interval that is no number": "train_cfg.val_interval=nan: should be a whole number, 1 or more",
    "milestones as text": "param_scheduler.1.milestones='8,11': should be a list of",
    "images divided by nothing": "model.data_preprocessor.std=[0, 0, 0]: images are divided by it",
    "the model's preprocessor where the section is read": "the model has no data_preprocessor of its own; set",
    "classes by an older name": "metainfo.CLASSES=('cat',): nothing reads it; did you mean classes?",
    "the smallest image as text": "filter_cfg.min_size='32': should be a number of pixels",
    "a list for a folder": "data_prefix=['images']: should be a folder, or a dict of folders",
    "no pipeline": "train_dataloader.dataset.pipeline=[]: should be a list of the steps that load and pack an image",
    "one entry of a list": "in a list only the keys of dicts are set one by one; set the whole of",
    "a dict in the place of a list": "custom_hooks is a list of",
    "modules to import, too late": "modules are imported as the file is read",
    "a misspelt priority": "custom_hooks.0.priority='SOON': should be one of HIGHEST",
    "a way to start processes that does not exist": "env_cfg.mp_cfg.mp_start_method='thread': none of fork",
    "no seed at all": "randomness=None: should be a dict",
    "a folder that is a number": "work_dir=5: should be the path of a folder",
    "to go on, in words": "resume='yes': should be True or False",
    "no proposal is kept": "model.test_cfg.rpn.max_per_img=0: should be how many are kept: a whole number, 1 or more",
    "no score is high enough": "model.test_cfg.rcnn.score_thr=1.0: should be below 1",
    "no detection is scored": "val_evaluator.proposal_nums=[0, 0, 0]: should be numbers of detections, 1 or more",
    "no box is sampled": "model.train_cfg.rcnn.sampler.num=0: samples nothing",
    "no window between windows": "model.test_cfg.stride=(96, 64): is beyond crop_size=(64, 64)",
    "no image of a class is right": "val_evaluator.topk=0: should be whole numbers, 1 or more",
    "learning rates scaled from no batch": "auto_scale_lr.base_batch_size=0: should be a whole number, 1 or more",
}


@pytest.mark.parametrize("case", MESSAGES)
def test_the_key_the_value_and_what_would_do(case):
    assert MESSAGES[case] in told(*EDITS[case])


@pytest.mark.parametrize(
    ("key", "kind", "expected"),
    [
        ("optim_wrapper.optimizer", "nowhere.optim.AdamW", "There is no package nowhere here: install it, or put"),
        ("optim_wrapper.optimizer", "torch.AdamW", "Did you mean AdamW?"),
        ("optim_wrapper.optimizer", ".AdamW", "Did you mean AdamW?"),
        ("custom_hooks.0", "nowhere.EMAHook", "There is no package nowhere here: install it, or put"),
        ("custom_hooks.0", "mmengin.EMAHook", "Did you mean EMAHook?"),
    ],
)
def test_a_class_of_a_package_that_is_not_installed(key, kind, expected):
    """Another class of its name, as PyTorch's Muon for timm's, is not what is meant."""
    noun = "hook" if "hooks" in key else "optimizer"
    message = told(SEG, {f"{key}.type": kind})
    assert f"{key}.type={kind!r}: no {noun} of that name is registered. {expected}" in message


RULES = {
    "epochs of a sampler that never ends": "it never ends, and so the first epoch would not. Take dict(type='Default",
    "images in the order of the data set": "sampler.shuffle=False: images are trained on in the order of the data set",
    "two batches of each epoch, as in a trial": "num_batch_per_epoch=2: all but so many batches are left out",
    "no metric": "val_evaluator=[]: has no metric: nothing would be scored",
    "schedules that nothing steps": "default_hooks.param_scheduler=None: without it no schedule acts",
    "the worst for the best": "checkpoint.rule='less': of save_best='accuracy/top1' more is better",
    "a rate that falls while accuracy rises": "param_scheduler.0.rule='less': of monitor='accuracy/top1' more is",
    "no patience": "custom_hooks.0.patience=0: should be a number of evaluations, 1 or more",
    "a rate that ends below zero": "param_scheduler.0.eta_min=-1e-05: should be 0 or more",
    "a rate that rises again": "it is at its lowest after T_max=9, and rises again until end=30: set T_max=30",
    "a lowest rate above the rate": "eta_min=0.5: is above optim_wrapper.optimizer.lr=",
    "a word for what happens on a full disk": "on_save_error='goon': should be 'stop' or 'go_on'",
}
ODD = {  # what is told, and runs
    "images in the order of the data set",
    "two batches of each epoch, as in a trial",
    "a rate that rises again",
    "a lowest rate above the rate",
    "a misspelt part of the model in a rule",
    "betas reversed",
}


@pytest.mark.parametrize("case", RULES)
def test_what_a_rule_says(case):
    name, options = EDITS[case]
    config = ready(name)
    merge_options(config, options)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        (finding,) = rule_findings(config, ("train", "val"))
    assert RULES[case] in str(finding) and finding.fatal is (case not in ODD)


def test_images_that_are_held_as_red_green_blue_take_imagenets_mean_as_it_is():
    """CIFAR's: they were told to be turned, to blue, green, red."""
    pytest.importorskip("mmpretrain")
    config = copy.deepcopy(loaded("sample/eyetoy-shallow_2e_cifar10-45k"))
    config.data_preprocessor.update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    assert not config.data_preprocessor.get("to_rgb")
    with DefaultScope.overwrite_default_scope(config.default_scope):
        assert not list(rule_findings(config, ("train", "val")))


OPTIMIZERS = {
    "a rate below zero of some parameters": "optim_wrapper.optimizer.lr: of ",
    "a rule without the setting that it multiplies": "optim_wrapper.optimizer.weight_decay: is missing: paramwise_cfg",
    "a misspelt part of the model in a rule": "custom_keys.bakbone: no parameter has this in its name; did you mean ba",
    "betas reversed": "betas=(0.99, 0.9): the first is of gradients",
    "a division by zero": "optim_wrapper.optimizer.eps=0: should be above 0",
    "momentum above one": "optim_wrapper.optimizer.momentum=9: should be below 1",
    "gradients of half a step": "accumulative_counts=2.5: should be a whole number of steps",
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_what_an_optimizer_says(case):
    model = torch.nn.Module()
    model.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    name, options = EDITS[case]
    config = ready(name)
    merge_options(config, options)
    (finding,) = optimizer_findings(model, config.optim_wrapper)
    assert OPTIMIZERS[case] in str(finding) and finding.fatal is (case not in ODD)


@pytest.mark.parametrize("name", TOOLBOXES)
def test_a_config_that_runs_is_left_alone(name):
    config = ready(name)
    before = copy.deepcopy(config.to_dict())
    random_state = random.getstate()
    assert config_findings(config, "train", "val", "test") == []
    assert config.to_dict() == before and random.getstate() == random_state


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("load_from_allow_missing", ["backbone.norm3"]),
        ("image_orientation", "exif"),
        ("skip_unreadable_images", 0.01),
        ("on_save_error", "go_on"),
    ],
)
def test_what_our_own_runs_read_may_be_given(key, value):
    """Our messages name these: new ones, and in place of those that a config has."""
    for config in (Config(dict(model=dict())), Config({"model": dict(), key: None})):
        merge_options(config, {key: value})
        assert config[key] == value


def test_everything_is_told_at_once_and_what_is_odd_is_not_refused():
    config = ready(SEG)
    merge_options(config, {"model.backbone.frozen_stage": 1, "log_level": "LOUD", "model.decode_head.dropout": 0.1})
    findings = config_findings(config, "train")
    assert [finding.kind for finding in findings if finding.fatal] == [
        "model.backbone.frozen_stage=1",
        "model.decode_head.dropout=0.1",
        "log_level='LOUD'",
    ]
    config = ready(SEG)
    merge_options(config, {"train_cfg.max_iters": 20})
    odd = config_findings(config, "train")
    assert odd and not any(finding.fatal for finding in odd) and "training ends after 20 iterations" in str(odd[-1])
    check_config(config, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"default_hooks.checkpoint.by_epoch": True},
            "default_hooks.checkpoint.by_epoch=True: training counts iterations: only its end is saved",
        ),
        ({"default_hooks": dict(_delete_=True, logger=None)}, "default_hooks.checkpoint.by_epoch=True"),  # the Runner's
        (
            {"default_hooks.logger.log_metric_by_epoch": True},
            "default_hooks.logger.log_metric_by_epoch=True: training counts iterations: all evaluations are logged",
        ),
        ({"log_processor": dict(by_epoch=True)}, "log_processor.by_epoch=True: training counts iterations"),
        (
            {"custom_hooks": [dict(type="EMAHook", begin_epoch=1)]},
            "custom_hooks.0.begin_epoch=1: training counts iterations: the average never begins",
        ),
        (
            {"custom_hooks": [dict(type="mmdet.YOLOXModeSwitchHook", num_last_epochs=5)]},
            "custom_hooks.0.num_last_epochs=5: training counts iterations, and is one epoch",
        ),
        (
            {"custom_hooks": [dict(type="mmpretrain.SwitchRecipeHook", schedule=[dict(action_epoch=3)])]},
            "custom_hooks.0.schedule=[{'action_epoch': 3}]: training counts iterations, and is one epoch",
        ),
    ],
    ids=["checkpoint", "none given", "logger", "lines", "average", "mode", "recipe"],
)
def test_what_counts_epochs_in_a_training_by_iterations(options, message):
    config = ready(SEG)
    merge_options(config, options | {"custom_hooks": options.get("custom_hooks", [])})
    (odd,) = (finding for finding in config_findings(config, "train") if "counts iterations" in finding.message)
    assert str(odd).startswith(message) and not odd.fatal


def test_a_name_of_another_toolbox_is_found_there():
    pytest.importorskip("mmdet.models", reason="mmdet is not installed")
    assert "Did you mean mmdet.RPNHead?" in told(*EDITS["a head of another toolbox"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(model="UPerHead"), "model='UPerHead': should be a dict"),
        (
            dict(model={}, custom_hooks=dict(type="EMAHook")),
            "custom_hooks={'type': 'EMAHook'}: should be a list of dicts",
        ),
        (dict(model={}, train_dataloader=[1]), "train_dataloader=[1]: should be a dict"),
        (dict(model={}, train_dataloader=dict(dataset="coco")), "train_dataloader.dataset='coco': should be a dict"),
        (dict(model={}, val_evaluator=["mIoU"]), "val_evaluator.0='mIoU': should be a dict"),
        (dict(model={}, default_hooks=dict(timer=3)), "default_hooks.timer=3: should be a dict, or None"),
        (dict(model=dict(_scope_=3)), "model._scope_=3: should be the name of a toolbox"),
    ],
)
def test_sections_of_another_kind(section, message):
    assert message in "\n".join(map(str, structure_findings(Config(section))))


def test_sections_that_go_together_and_misspelt_ones():
    config = ready(SEG)
    config.pop("val_cfg")
    config.optim_wraper = config.pop("optim_wrapper")
    text = "\n".join(map(str, config_findings(config, "train")))
    assert "val_cfg: is missing: val takes val_dataloader, val_cfg, val_evaluator together" in text
    assert "optim_wraper: nothing reads a section optim_wraper; did you mean optim_wrapper?" in text


def test_options_put_a_dict_in_the_place_of_something_else():
    config = Config(dict(model=dict(backbone=dict(init_cfg=None))))
    options = {"model.backbone.init_cfg.checkpoint": "x.pth"}
    with pytest.raises(UserError, match="model.backbone.init_cfg is None, which has no keys below it"):
        merge_options(config, options)
    merge_options(config, options | {"model.backbone.init_cfg._delete_": True})
    assert config.model.backbone.init_cfg == dict(checkpoint="x.pth")


def test_optimizers_that_run_are_left_alone():
    config = ready(SEG)
    rules = dict(norm_decay_mult=0.0, layer_decay_rate=0.9, custom_keys=dict(bias=dict(lr_mult=2, lars_exclude=True)))
    clip = dict(max_norm=0.1, norm_type=2)
    merge_options(config, {"optim_wrapper.paramwise_cfg": rules, "optim_wrapper.clip_grad": clip})
    odd = [str(finding) for finding in config_findings(config, "train")]
    assert odd == ["optim_wrapper.paramwise_cfg.layer_decay_rate=0.9: nothing reads it"]  # said, and not refused
    merge_options(config, {"optim_wrapper.constructor": "eyetoy_mm.LayerDecayOptimWrapperConstructor"})
    assert config_findings(config, "train") == []
    merge_options(config, {"optim_wrapper.paramwise_cfg.custom_keys": dict(bakbone=dict(lr_mult=0.1))})
    assert "no parameter has this in its name" in "\n".join(map(str, config_findings(config, "train")))


def test_a_work_dir_that_cannot_be_made(tmp_path):
    config = ready(SEG)
    (tmp_path / "file").touch()
    config.work_dir = str(tmp_path / "file" / "work")
    assert f"{tmp_path / 'file'} is a file" in "\n".join(map(str, config_findings(config, "train")))


def test_the_nearest_name():
    assert nearest("crossentropy", ["OhemCrossEntropy", "CrossEntropyLoss"]) == "CrossEntropyLoss"
    assert nearest("depht", ["depth", "width"]) == "depth" and nearest("x", ["depth"]) is None


# --- Random ones: more with benchmarks/fuzz_configs.py ----------------------------------------------------------------


def test_random_backbones_run_or_are_refused_by_a_message():
    pytest.importorskip("mmengine")
    outcomes = []
    for number in range(50):
        kind, arguments = random_backbone(random.Random(f"suite {number}"))
        torch.manual_seed(number)
        try:
            outcomes.append(run_backbone(kind, arguments))
        except (ValueError, TypeError) as error:
            assert str(error)
            outcomes.append("refused")
    assert outcomes.count("runs") > 5 and outcomes.count("refused") > 10


@pytest.mark.parametrize("name", TOOLBOXES)
def test_random_edits_are_built_or_refused_by_a_message(name):
    config, outcomes = ready(name), []
    for number in range(6):
        edited, what = random_edit(config, random.Random(f"{number}"))
        try:
            for finding in config_findings(edited, "train", "val"):
                assert finding.message
                outcomes.append(finding.fatal)
        except UserError:
            outcomes.append(True)
        except Exception as error:
            pytest.fail(f"{what}: {error!r}")
    assert any(outcomes)
