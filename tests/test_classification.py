"""Classifiers in mmpretrain: what they see, the ImageNet recipe as it is loaded, and labels that do not fit."""

import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from torch import nn

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.hooks import CheckClsLabelsHook
from eyetoy_mm.errors import UserError
from tests import program

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample

ROOT = Path(__file__).resolve().parents[1]
IMAGENET = ROOT / "configs/eyetoy_imagenet.py"
DEMO = {"model.backbone.arch.type": "demo", "model.head.in_channels": 192}


def build(config):
    init_default_scope(config.default_scope)
    return MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))


# Heads on the context token and on the mean of the last map.


@pytest.mark.parametrize("out_type", ["context_token", "avg_featmap"])
def test_classifier_on_a_vector(out_type):
    model = build(load_config(IMAGENET, options=DEMO | {"model.backbone.out_type": out_type, "model.train_cfg": None}))
    images = [torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8) for _ in range(2)]
    data = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in (3, 999)])
    losses = model(**model.data_preprocessor(data, training=True), mode="loss")
    assert list(losses) == ["loss"]
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    model.eval()
    inputs = model.data_preprocessor(data)["inputs"]
    mean, std = (torch.tensor(v)[:, None, None] for v in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    torch.testing.assert_close(inputs, (torch.stack(images).flip(1) - mean) / std)  # images come as BGR
    with torch.no_grad():
        *_, (features, context_token) = model.backbone.encoder.forward_stages(inputs)
        normed = model.backbone.norm3(context_token if out_type == "context_token" else features)
        expected = normed.flatten(1, -2).mean(1)  # there is one context token
        stages = [model.extract_feat(inputs, stage=stage) for stage in ("backbone", "neck", "pre_logits")]
        torch.testing.assert_close(stages, [(expected,), (expected,), expected])
        scores = model.head.fc(expected).softmax(1)
        torch.testing.assert_close(model(inputs), model.head.fc(expected))
        results = model.test_step(data)
    torch.testing.assert_close(torch.stack([result.pred_score for result in results]), scores)
    assert [int(result.pred_label) for result in results] == scores.argmax(1).tolist()


@pytest.mark.parametrize("path", [IMAGENET, *sorted(ROOT.glob("configs/*/eyetoy-*.py"))], ids=lambda path: path.stem)
def test_every_classifier_gets_normed_images_and_one_number_of_classes(path):
    """mmengine takes either the model's preprocessor or the config's, and mixes them in no case."""
    config = load_config(path)
    assert "data_preprocessor" not in config.model
    assert len(config.data_preprocessor.mean) == len(config.data_preprocessor.std) == 3
    assert config.data_preprocessor.num_classes == config.model.head.num_classes


# The recipe for ImageNet.


@pytest.fixture(scope="module")
def imagenet():
    return load_config(IMAGENET, options=DEMO)


@pytest.fixture(scope="module")
def classifier(imagenet):
    return build(imagenet)


def test_epochs_and_batch(imagenet):
    assert imagenet.train_cfg.by_epoch and imagenet.train_cfg.max_epochs == 300
    assert imagenet.train_dataloader.batch_size == 128
    assert imagenet.auto_scale_lr == dict(enable=False, base_batch_size=8 * 128)
    assert Config.fromfile(IMAGENET).optim_wrapper.type == "AmpOptimWrapper"  # before it is adapted to the machine


def test_augmentation_of_images(imagenet, classifier):
    pipeline = [TRANSFORMS.build(step) for step in imagenet.train_dataloader.dataset.pipeline]
    crop, flip, rand_augment, erasing = pipeline[1:5]
    assert [type(step).__name__ for step in pipeline] == [
        "LoadImageFromFile", "RandomResizedCrop", "RandomFlip", "RandAugment", "RandomErasing", "PackInputs",
    ]  # fmt: skip
    assert crop.scale == (224, 224) and flip.prob == 0.5
    assert (rand_augment.magnitude_level, rand_augment.total_level, rand_augment.magnitude_std) == (9, 10, 0.5)
    assert rand_augment.num_policies == 2
    assert (erasing.erase_prob, erasing.mode) == (0.25, "rand")


def test_mixed_images(classifier):
    mixing = classifier.data_preprocessor.batch_augments
    assert [(type(augment).__name__, augment.alpha) for augment in mixing.augments] == [("Mixup", 0.8), ("CutMix", 1.0)]
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(4)]
    data = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in range(4)])
    scores = torch.stack([s.gt_score for s in classifier.data_preprocessor(data, training=True)["data_samples"]])
    assert scores.shape == (4, 1000)
    torch.testing.assert_close(scores.sum(1), torch.ones(4))
    assert (scores.max(1).values < 1).any()


def test_label_smoothing(classifier):
    logits, labels = torch.randn(5, 1000), torch.randint(1000, (5,))
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(classifier.head.loss_module(logits, labels), expected)
    mixed = torch.rand(5, 1000).softmax(1)
    expected = F.cross_entropy(logits, mixed, label_smoothing=0.1)
    torch.testing.assert_close(classifier.head.loss_module(logits, mixed), expected)


def test_optimizer_and_what_does_not_decay(imagenet, classifier):
    wrapper = build_optim_wrapper(classifier, imagenet.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    assert wrapper.clip_grad_kwargs == dict(max_norm=5.0)
    exempt = {name for name, _ in classifier.named_parameters() if name.endswith(("bias", "_tokens", "_token"))}
    for name, module in classifier.named_modules():
        if isinstance(module, nn.LayerNorm):
            exempt.add(f"{name}.weight")
    assert {"backbone.norm3.weight", "head.fc.bias"} < exempt
    assert sum("register_tokens" in name for name in exempt) == sum("context_token" in name for name in exempt) == 1
    group_of = {id(p): group for group in wrapper.optimizer.param_groups for p in group["params"]}
    decay = {name: group_of[id(p)]["weight_decay"] for name, p in classifier.named_parameters()}
    assert decay == {name: 0.0 if name in exempt else 0.05 for name in decay}
    assert {(group["lr"], group["betas"]) for group in group_of.values()} == {(1e-3, (0.9, 0.999))}


def test_learning_rate(imagenet):
    """20 epochs up, then half a cosine down; of an epoch with two iterations."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    arguments = dict(optimizer=optimizer, epoch_length=2)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(dict(end=300), **settings), default_args=arguments)
        for settings in imagenet.param_scheduler
    ]
    rates = []  # at the start of every epoch
    for _ in range(300):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(2):
            optimizer.step()
            [scheduler.step() for scheduler in schedulers if not scheduler.by_epoch]
        [scheduler.step() for scheduler in schedulers if scheduler.by_epoch]
    assert rates[0] == pytest.approx(1e-6) and rates[20] == pytest.approx(1e-3)
    steps = np.diff(rates[:20])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    cosine = [1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * (epoch - 20) / 280)) / 2 for epoch in range(20, 300)]
    np.testing.assert_allclose(rates[20:], cosine, rtol=1e-6)


def test_averaged_weights(imagenet):
    (settings,) = [hook for hook in imagenet.custom_hooks if hook.type == "EMAHook"]
    assert settings.priority == "ABOVE_NORMAL"  # before checkpoints are written; the runner takes it
    hook = HOOKS.build({key: value for key, value in settings.items() if key != "priority"})
    model = nn.Linear(1, 1, bias=False)
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    hook.before_run(runner)
    for weight in (1.0, 2.0):  # the average starts at the first
        nn.init.constant_(model.weight, weight)
        hook.after_train_iter(runner, 0)
    hook.before_val_epoch(runner)
    assert model.weight.item() == pytest.approx(0.9999 * 1 + 1e-4 * 2, abs=1e-7)  # what is evaluated
    hook.after_val_epoch(runner)
    assert model.weight.item() == 2.0


# Labels and classes that do not fit.

CONFIG = f"""
_base_ = "{ROOT}/configs/sample/eyetoy-shallow_caltech101-sample.py"
pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
model = dict(
    backbone=dict(arch=dict(embed_dims=(8, 16), stem_channels=8)),
    head=dict(num_classes=3, in_channels=16),
    train_cfg=dict(_delete_=True, augments=[dict(type="Mixup", alpha=0.8)]),
)
data_preprocessor = dict(num_classes=3)
train_dataloader = dict(dataset=dict(pipeline=pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=pipeline), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=None)
custom_hooks = _base_.custom_hooks[:1]
"""


@pytest.fixture
def config(tmp_path):
    """Path of a config for a folder with three classes."""
    for split in ("train", "test"):
        for name in ("ant", "bee", "cat"):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / "0.png"), np.zeros((16, 16, 3), np.uint8))
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def runner(config, **options):
    options = {key.replace("__", "."): value for key, value in options.items()}
    root = config.parent
    loaded = load_config(config, work_dir=str(root / "work"), data_root=str(root), options=options)
    loaded.experiment_name = root.name
    return Runner.from_cfg(loaded)


def test_what_fits_is_trained_and_evaluated(config):
    work = runner(config)
    work.train()
    assert work.iter == 2
    assert "accuracy/top1" in work.test()


def refused(act, *messages):
    with pytest.raises(UserError) as raised:
        act()
    for message in messages:
        assert message in str(raised.value)


def test_number_of_classes(config):
    work = runner(config, model__head__num_classes=12)
    message = "num_classes=12, but ClassFolders has 3 classes (ant, ..., cat). Set num_classes=3 in model.head and"
    refused(work.train, message)
    refused(work.test, message)


def test_number_of_classes_of_mixed_images(config):
    work = runner(config, data_preprocessor__num_classes=4)
    refused(work.train, "data_preprocessor has num_classes=4, but model.head has 3")
    runner(config, data_preprocessor__num_classes=4, model__train_cfg=None).train()  # nothing is mixed


def test_order_of_classes(config):
    work = runner(config, val_dataloader__dataset__classes=["ant", "cat", "bee"])
    refused(work.train, "label 1 is 'bee' in training and 'cat' in validation")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels(config, split):
    image = config.parent / "train/bee/0.png"
    (config.parent / "list.txt").write_text(f"{image} 3\n")
    work = runner(config, **{f"{split}_dataloader__dataset__ann_file": "list.txt"})
    message = f"{image} has label 3, but the model has num_classes=3 (labels 0 to 2)"
    refused(work.test if split == "test" else work.train, message)


def test_heads_without_classes_are_not_checked():
    batch = dict(data_samples=[DataSample().set_gt_label(3)])
    hook, work = CheckClsLabelsHook(), SimpleNamespace(model=nn.Linear(1, 1))
    work.train_loop = work.test_loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=["no metainfo"]))
    work.val_loop = None
    hook.before_train(work)
    hook.before_test(work)
    hook.before_train_iter(work, 0, batch)
    hook.before_val_iter(work, 0, batch)


def test_one_message_on_the_command_line(config):
    root = config.parent
    arguments = [config, "--work-dir", root / "work", "--data-root", root]
    done = program.run("tools/train.py", *arguments, "--cfg-options", "model.head.num_classes=12")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: the model has num_classes=12, but ClassFolders has 3 classes"
    )
