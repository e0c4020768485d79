"""Classifiers in mmpretrain: the recipe of ImageNet, both kinds of heads, a training on folders, and errors by name."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.errors import UserError, report_user_errors
from eyetoy_mm.engine.hooks import CheckClsLabelsHook

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")

ROOT = Path(__file__).resolve().parents[1]
MICRO = dict(
    embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 1), windows=((3, 3), (3,)), merging=((1, 2), (1,)),
    global_layers=1, global_heads=2, register_tokens=2, conv_groups=8, stem_stride=2,
)  # fmt: skip


def classifier(out_type="context_token", num_classes=2, **changes):
    init_default_scope("mmpretrain")
    config = dict(
        type="ImageClassifier",
        data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True, num_classes=num_classes),
        backbone=dict(type="eyetoy_mm.EyeToy", arch=MICRO, out_type=out_type),
        head=dict(type="LinearClsHead", num_classes=num_classes, in_channels=16),
    )
    return config | changes


# --- the recipe of ImageNet -----------------------------------------------------------------------------------------


def test_the_recipe_of_imagenet():
    config = load_config(ROOT / "configs/eyetoy_imagenet.py")
    augment = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert augment["RandAugment"].magnitude_level == 9 and augment["RandAugment"].magnitude_std == 0.5
    assert augment["RandomErasing"].erase_prob == 0.25
    assert config.model.train_cfg.augments == [dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]
    assert config.model.head.loss.label_smooth_val == 0.1
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-3, 0.05)
    assert config.optim_wrapper.clip_grad.max_norm == 5.0
    warm_up, cosine = config.param_scheduler
    assert warm_up.type == "LinearLR" and warm_up.end == cosine.begin == 20 and cosine.type == "CosineAnnealingLR"
    assert config.train_cfg.max_epochs == 300
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 1024
    assert [hook.type for hook in config.custom_hooks] == ["eyetoy_mm.CheckClsLabelsHook", "EMAHook"]


@pytest.mark.parametrize("name", ["eyetoy_imagenet", "eyetoy/eyetoy-shallow_b128-30e_cifar10"])
def test_norms_biases_and_tokens_do_not_decay(name):
    config = load_config(ROOT / f"configs/{name}.py")
    model = MODELS.build(classifier())
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    for name, parameter in model.named_parameters():
        assert decay[name] == (0.0 if parameter.ndim < 2 or "_token" in name else 0.05), name
    assert sum("_token" in name for name in decay) == 2


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out_type", ["context_token", "avg_featmap"])
def test_both_heads_in_image_classifier(out_type):
    torch.manual_seed(0)
    model = MODELS.build(classifier(out_type, num_classes=5)).eval()
    model.init_weights()
    x = torch.randn(2, 3, 20, 12)
    with torch.no_grad():
        *_, (features, token) = model.backbone.encoder.forward_stages(x)  # (2, 3, 2, 16) and (2, 1, 16)
        vectors = token[:, 0] if out_type == "context_token" else features.reshape(2, -1, 16)
        expected = torch.nn.functional.layer_norm(vectors, (16,))  # the norm's own weights are 1 and 0
        expected = expected if out_type == "context_token" else expected.mean(1)
        for stage in ("backbone", "neck"):
            (extracted,) = model.extract_feat(x, stage=stage)
            torch.testing.assert_close(extracted, expected)
        torch.testing.assert_close(model.extract_feat(x, stage="pre_logits"), expected)
        logits = expected @ model.head.fc.weight.T + model.head.fc.bias
        torch.testing.assert_close(model(x, mode="tensor"), logits)
        for sample, scores in zip(model(x, mode="predict"), logits.softmax(1)):
            torch.testing.assert_close(sample.pred_score, scores)
            assert sample.pred_label.item() == scores.argmax()


def test_only_the_context_token_classifies():
    """Where it is the head's input, the other outputs have no say: the loss reaches everything through the token."""
    from mmpretrain.structures import DataSample

    model = MODELS.build(classifier())
    losses = model(torch.randn(2, 3, 16, 16), [DataSample().set_gt_label(i) for i in (0, 1)], mode="loss")
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("out_type", ["context_token", "avg_featmap"])
def test_feature_extractor(tmp_path, out_type):
    from mmengine.config import Config
    from mmpretrain import FeatureExtractor

    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
    config = Config(
        dict(
            model=classifier(out_type),
            test_dataloader=dict(dataset=dict(type="eyetoy_mm.ClassFolders", pipeline=pipeline)),
        )
        | dict(default_scope="mmpretrain")
    )
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    extract = FeatureExtractor(config, device="cpu")
    vector = extract(image, stage="pre_logits")[0]
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = extract.model.extract_feat((rgb - 127.5) / 64, stage="pre_logits")[0]
    torch.testing.assert_close(vector, expected)
    assert vector.shape == (16,)


# --- training on class folders --------------------------------------------------------------------------------------


def photos(root, classes=("blue", "red"), count=8):
    """Noise that is bright in the channel of its class; OpenCV's order is blue, green, red."""
    rng = np.random.default_rng(0)
    for channel, name in zip((0, 2, 1), classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 120, (16, 16, 3))
            image[..., channel] += 100
            cv2.imwrite(str(root / name / f"{index}.png"), image)
    return root


def run(root, work_dir, num_classes=2, hooks=(), **dataset):
    """Train on `root`/train and validate on `root`/val."""
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]

    def loader(split, shuffle):
        data = dict(type="eyetoy_mm.ClassFolders", data_root=str(root), data_prefix=split, pipeline=pipeline)
        sampler = dict(type="DefaultSampler", shuffle=shuffle)
        return dict(batch_size=4, num_workers=0, sampler=sampler, dataset=data | dataset)

    model = classifier(num_classes=num_classes)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=loader("train", True),
        val_dataloader=loader("val", False),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        val_cfg=dict(),
        val_evaluator=dict(type="Accuracy"),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-2)),
        custom_hooks=[dict(type="eyetoy_mm.CheckClsLabelsHook"), *hooks],
        default_scope="mmpretrain",
        experiment_name=str(work_dir).replace("/", "_"),
        randomness=dict(seed=0),
        log_level="ERROR",
    )
    runner.train()
    return runner


def test_training_on_folders_with_averaged_weights(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "val", count=4)
    runner = run(tmp_path, tmp_path / "w", hooks=[dict(type="EMAHook", momentum=0.3, priority="ABOVE_NORMAL")])
    assert runner.train_dataloader.dataset.metainfo["classes"] == ("blue", "red")
    assert runner.message_hub.get_scalar("val/accuracy/top1").current() == 100.0
    saved = torch.load(tmp_path / "w/epoch_3.pth", weights_only=False)
    averaged, trained = saved["state_dict"]["head.fc.weight"], saved["ema_state_dict"]["module.head.fc.weight"]
    assert averaged.shape == trained.shape and not torch.equal(averaged, trained)


def test_classes_choose_and_order_the_folders(tmp_path):
    from eyetoy_mm.datasets.class_folders import ClassFolders

    photos(tmp_path / "train", ("blue", "red", "green"), count=2)
    dataset = ClassFolders(str(tmp_path), classes=("red", "blue"), data_prefix="train")
    assert [(Path(item["img_path"]).parent.name, item["gt_label"]) for item in dataset] == [("red", 0)] * 2 + [
        ("blue", 1)
    ] * 2


# --- errors ---------------------------------------------------------------------------------------------------------


def test_folders_that_are_missing_or_empty(tmp_path):
    photos(tmp_path / "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="val has no class folders"):
        run(tmp_path, tmp_path / "w1")
    with pytest.raises(UserError, match="no folder .*green for the class 'green'; .*has blue, red"):
        run(tmp_path, tmp_path / "w2", classes=("blue", "green"))
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(UserError, match="the class 'empty' has no image"):
        run(tmp_path, tmp_path / "w3")
    (tmp_path / "train/empty/0.png").touch()
    with pytest.raises(UserError, match="empty/0.png is missing or empty"):
        run(tmp_path, tmp_path / "w4")


def test_classes_that_differ(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "val", ("blue", "rosé"))
    with pytest.raises(UserError, match="label 1 is 'red' in training and 'rosé' in validation"):
        run(tmp_path, tmp_path / "w1")
    with pytest.raises(UserError, match="model has num_classes=3, but ClassFolders has 2 classes \\(blue, ..., red"):
        run(tmp_path, tmp_path / "w2", num_classes=3)


def test_an_image_that_cannot_be_read(tmp_path):
    photos(tmp_path / "train", count=1)
    photos(tmp_path / "val", count=1)
    (tmp_path / "train/red/0.png").write_text("no image")
    with pytest.raises(SystemExit, match="red/0.png is not an image that OpenCV can read"):
        report_user_errors(lambda: run(tmp_path, tmp_path / "w"))()


def fake_runner(num_classes):
    return SimpleNamespace(model=SimpleNamespace(head=SimpleNamespace(num_classes=num_classes)))


@pytest.mark.parametrize("moment", ["before_train_iter", "before_val_iter", "before_test_iter"])
@pytest.mark.parametrize("label", [10, -1, [3, 12]])
def test_labels_out_of_range(moment, label):
    from mmpretrain.structures import DataSample

    check = getattr(CheckClsLabelsHook(), moment)
    wrong = DataSample(metainfo=dict(img_path="photos/cat.jpg")).set_gt_label(label)
    worst = label[-1] if isinstance(label, list) else label
    right = [DataSample().set_gt_label(0), DataSample().set_gt_label(9), DataSample()]
    check(fake_runner(10), 0, dict(inputs=None, data_samples=right))
    with pytest.raises(UserError, match=f"photos/cat.jpg has label {worst}, but the model has num_classes=10"):
        check(fake_runner(10), 0, dict(inputs=None, data_samples=[*right, wrong]))
    check(fake_runner(None), 0, dict(inputs=None, data_samples=[wrong]))  # a head that has no classes


def test_mixed_images_need_one_number_of_classes():
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=("a", "b"))))
    runner = fake_runner(2)
    runner.model.data_preprocessor = SimpleNamespace(to_onehot=True, num_classes=1000)
    runner.train_loop, runner.val_loop = SimpleNamespace(dataloader=loader), None
    with pytest.raises(UserError, match="data_preprocessor has num_classes=1000, but model.head has 2"):
        CheckClsLabelsHook().before_train(runner)
