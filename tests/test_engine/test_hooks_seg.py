"""Labels of segmentation in a run: every head, every split."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from eyetoy_mm.engine.hooks import CheckSegLabelsHook
from eyetoy_mm.errors import UserError


def head(num_classes: int, ignore_index: int = 255) -> nn.Module:
    module = nn.Identity()
    module.num_classes, module.ignore_index = num_classes, ignore_index
    return module


def runner(train=("a", "b"), val=("a", "b"), decode=2, auxiliary=2):
    """A run of a model with one head of each kind, or of a cascade."""
    model = nn.Module()
    several = isinstance(decode, tuple)
    model.decode_head = nn.ModuleList(map(head, decode)) if several else head(decode)
    model.auxiliary_head = head(auxiliary)
    loops = {
        f"{name}_loop": SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=x))))
        for name, x in (("train", train), ("val", val), ("test", val))
    }
    return SimpleNamespace(model=model, **loops)


def batch(*labels: int) -> dict:
    samples = []
    for label in labels:
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 2, 2), label)))
        sample.set_metainfo(dict(seg_map_path=f"{label}.png"))
        samples.append(sample)
    return dict(data_samples=samples)


@pytest.mark.parametrize("moment", ["before_train_iter", "before_val_iter", "before_test_iter"])
@pytest.mark.parametrize("decode", [2, (2, 2)])
def test_labels_of_every_split_and_head(moment, decode):
    run, check = runner(decode=decode), getattr(CheckSegLabelsHook(), moment)
    check(run, 0, batch(0, 1, 255))
    with pytest.raises(UserError, match=r"7.png has label 7 after loading, .*num_classes=2"):
        check(run, 0, batch(0, 7))


def test_heads_of_other_things_and_of_one_output():
    """STDC's boundaries and VPD's depths have a num_classes that is not the data's; one output is for two classes."""
    boundary = type("STDCHead", (nn.Identity,), {})()
    boundary.num_classes, boundary.ignore_index = 7, 255
    run = runner()
    run.model.auxiliary_head = nn.ModuleList([head(2), boundary])
    CheckSegLabelsHook().before_train(run)
    run.model.decode_head = head(1)
    run.model.decode_head.out_channels = 1
    CheckSegLabelsHook().before_train(run)
    CheckSegLabelsHook().before_train_iter(run, 0, batch(0, 1))
    with pytest.raises(UserError, match="has 3 classes"):
        CheckSegLabelsHook().before_test(runner(val=("a", "b", "c")))


def test_what_a_head_ignores_is_no_fault():
    run = runner()
    run.model.decode_head.ignore_index = 9
    with pytest.raises(UserError, match="label 9 after loading"):  # the other head does not ignore it
        CheckSegLabelsHook().before_train_iter(run, 0, batch(0, 9))
    run.model.auxiliary_head.ignore_index = 9
    CheckSegLabelsHook().before_train_iter(run, 0, batch(0, 9))
    with pytest.raises(UserError, match=r"label 255 .*labels 0 to 1, 9 to ignore.*seg_pad_val"):
        CheckSegLabelsHook().before_train_iter(run, 0, batch(0, 255))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(decode=150), r"model.decode_head has num_classes=150, but .* 2 classes \(a, ..., b\)"),
        (dict(decode=(2, 19)), "model.decode_head.1 has num_classes=19"),
        (dict(auxiliary=150), "model.auxiliary_head has num_classes=150"),
        (dict(val=("b", "a")), "label 0 is 'a' in training and 'b' in validation"),
        (dict(val=("a", "b", "c")), "has 3 classes"),
    ],
)
def test_classes_are_compared(settings, message):
    with pytest.raises(UserError, match=message):
        CheckSegLabelsHook().before_train(runner(**settings))
    CheckSegLabelsHook().before_train(runner())
    CheckSegLabelsHook().before_train(runner(train=(), val=()))  # without names


def test_nothing_but_ignored_stops():
    hook, run = CheckSegLabelsHook(patience=3), runner()
    hook.before_train_iter(run, 0, batch(255, 255))
    hook.before_train_iter(run, 1, batch(255))
    with pytest.raises(UserError, match="every pixel of the first 4 masks of train is ignored"):
        hook.before_train_iter(run, 2, batch(255))
    CheckSegLabelsHook(patience=3).before_train_iter(run, 5000, batch(255))  # the first of a run that goes on
    hook = CheckSegLabelsHook(patience=2)
    hook.before_train_iter(run, 0, batch(0))
    for index in range(1, 9):
        hook.before_train_iter(run, index, batch(255))
    hook.before_val_epoch(run)
    hook.before_val_iter(run, 0, batch(255))
    with pytest.raises(UserError, match="of val is ignored"):
        hook.after_val_epoch(run, {})


def test_a_model_without_decode_heads_is_left_alone():
    run = runner()
    run.model = nn.Linear(1, 1)
    CheckSegLabelsHook().before_train_iter(run, 0, batch(99))
    CheckSegLabelsHook().before_train(run)
