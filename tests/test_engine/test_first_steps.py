"""What only computing or the data show to be wrong: told by the key of the config, before or in the first step."""

import copy
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from benchmarks.fuzz_configs import small_config
from eyetoy_mm.engine.config_options import merge_options
from eyetoy_mm.engine.exact_resume import positioned
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import CheckOutputsHook
from eyetoy_mm.engine.loop_checks import _alone, _tell_cut_accumulations, _tell_what_is_saved_late, check_loops
from eyetoy_mm.errors import UserError

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_config("sample/upernet_nat-demo_sample", tmp_path_factory.mktemp("small"))


@pytest.fixture
def train(small, tmp_path):
    def run(**options):
        config = copy.deepcopy(small)
        merge_options(config, {f"{key}._delete_": True for key, new in options.items() if isinstance(new, dict)})
        merge_options(config, options)
        config.work_dir = config.experiment_name = str(tmp_path)
        with explained_errors(config) as run:
            runner = run.runner = Runner.from_cfg(config)
            check_loops(runner)
            runner.train()

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model.decode_head.pool_scales": [[1]]},
            r"model.decode_head: UPerHead, at psp_modules.*fails in an evaluation",
        ),
        ({"train_dataloader.dataset.pipeline.2.scale": (32, -1)}, r"pipeline.2=.*RandomResize fails on \S+\.jpg: "),
        (
            {"train_dataloader.dataset.metainfo.palette": [[0, 0, 0]]},
            "BaseSegDataset cannot be built .*palette does not",
        ),
        ({"val_evaluator.nan_to_num": "x"}, "^val_evaluator: fails in an evaluation"),
    ],
)
def test_an_error_names_the_key_and_keeps_the_traceback(train, tmp_path, options, message):
    with pytest.raises(UserError, match=message) as error:
        train(**options)
    path = tmp_path / "traceback.txt"
    assert str(error.value).endswith(f"The traceback is in {path}") and "Traceback (most recent" in path.read_text()


def test_no_step_and_a_batch_of_one_image(train):
    common = {
        "train_cfg": dict(type="EpochBasedTrainLoop", max_epochs=1),
        "train_dataloader.sampler": dict(type="DefaultSampler"),
    }
    with pytest.raises(UserError, match="2 images give no batch of 3, and incomplete ones are dropped"):
        train(**common, **{"train_dataloader.batch_size": 3, "train_dataloader.drop_last": True})
    with pytest.raises(UserError, match=r"3 images in batches of 2 leave one for the last, and model.decode_head"):
        train(**common, **{"train_dataloader.dataset.indices": 3})


def test_images_of_several_sizes_in_a_batch_of_validation(train):
    with pytest.raises(UserError, match="val_dataloader.batch_size=2: the pipeline makes"):
        train(**{"val_dataloader.batch_size": 2, "val_dataloader.dataset.indices": 8})


def loader_of(images, size, **settings):
    """Batches of ``size`` random images, as a run of this package makes them."""
    data = [dict(inputs=torch.zeros(3, *images[1:], dtype=torch.uint8), data_samples=None)] * images[0]
    return positioned(DataLoader(data, batch_size=size, collate_fn=pseudo_collate, **settings), seed=0)


@pytest.mark.parametrize(
    ("images", "size", "settings", "told"),
    [
        ((3, 32, 32), 2, {}, "3 images in batches of 2 leave one for the last, and model.backbone (ResNet, at layer4"),
        ((2, 32, 32), 1, {}, "train_dataloader.batch_size=1: model.backbone (ResNet, at layer4"),
        ((3, 64, 64), 2, {}, None),
        ((4, 32, 32), 2, {}, None),
        ((3, 32, 32), 2, dict(drop_last=True), None),
    ],
)
def test_a_batch_of_one_image_of_the_size_that_the_pipeline_makes(images, size, settings, told):
    """The config does not say how large the images are."""
    pytest.importorskip("mmpretrain")
    from mmpretrain.models import ClsDataPreprocessor

    head = dict(type="LinearClsHead", num_classes=2, in_channels=512)
    neck, preprocessor = dict(type="GlobalAveragePooling"), dict(type="ClsDataPreprocessor")
    model = dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=18), neck=neck, head=head)
    config = Config(
        dict(default_scope="mmpretrain", model=model, data_preprocessor=preprocessor, train_dataloader=dict())
    )
    module = nn.Module()
    module.data_preprocessor = ClsDataPreprocessor()
    runner = SimpleNamespace(cfg=config, model=module)
    loader = loader_of(images, size, **settings)
    found = [str(finding) for finding in _alone(runner, loader, loader.dataset[0])]
    assert bool(found) == bool(told) and (told or "") in "".join(found)


def test_data_without_a_batch_or_an_image():
    no_batch = SimpleNamespace(train_dataloader=loader_of((2, 8, 8), 3, drop_last=True), val_loop=None)
    with pytest.raises(UserError, match="2 images give no batch of 3, and incomplete ones are dropped"):
        check_loops(no_batch)
    nothing = DataLoader([], batch_size=1)
    unseen = SimpleNamespace(train_dataloader=loader_of((2, 8, 8), 2), val_loop=SimpleNamespace(dataloader=nothing))
    with pytest.raises(UserError, match="val_dataloader: has no image"):
        check_loops(unseen)


@pytest.mark.parametrize(
    ("kind", "by_epoch", "interval", "counts", "fits"),
    [
        (IterBasedTrainLoop, False, 6, 4, 4),
        (IterBasedTrainLoop, False, 8, 4, None),
        (IterBasedTrainLoop, True, 1, 4, None),  # at its end alone, which the config is told
        (EpochBasedTrainLoop, True, 1, 4, 2),  # of 6 steps
        (EpochBasedTrainLoop, True, 2, 4, None),
        (EpochBasedTrainLoop, True, 3, 1, None),
        (EpochBasedTrainLoop, False, 6, 4, 4),
        (EpochBasedTrainLoop, False, 4, 4, None),
    ],
)
def test_checkpoints_in_the_middle_of_an_accumulation_are_told(kind, by_epoch, interval, counts, fits, monkeypatch):
    told = []
    monkeypatch.setattr("eyetoy_mm.engine.loop_checks.print_log", lambda text, *args: told.append(text))
    loop = kind.__new__(kind)
    loop.dataloader = loader_of((12, 8, 8), 2)
    hooks = [CheckpointHook(interval, by_epoch=by_epoch), CheckpointHook(-1)]
    cfg = Config(dict(optim_wrapper=dict(accumulative_counts=counts)))
    _tell_cut_accumulations(SimpleNamespace(cfg=cfg, train_loop=loop, hooks=hooks, max_iters=18))
    assert len(told) == (fits is not None)
    assert fits is None or told[0].endswith(f"Take an interval of {fits}, or a multiple of it")


def test_more_gradients_than_steps_are_told(monkeypatch):
    told = []
    monkeypatch.setattr("eyetoy_mm.engine.loop_checks.print_log", lambda text, *args: told.append(text))
    cfg = Config(dict(optim_wrapper=dict(accumulative_counts=19)))
    _tell_cut_accumulations(SimpleNamespace(cfg=cfg, hooks=[], train_loop=None, max_iters=18))
    assert "gradients of 19 steps are accumulated, and training has 18: one update is made" in told[0]


@pytest.mark.parametrize(
    ("by_epoch", "interval", "late"), [(True, 2, False), (True, 3, True), (False, 17, False), (False, 18, True)]
)
def test_a_run_of_which_only_the_end_is_saved_is_told(by_epoch, interval, late, monkeypatch):
    told = []
    monkeypatch.setattr("eyetoy_mm.engine.loop_checks.print_log", lambda text, *args: told.append(text))
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader = loader_of((12, 8, 8), 2)  # 6 steps an epoch
    hooks = [CheckpointHook(interval, by_epoch=by_epoch), CheckpointHook(-1)]
    _tell_what_is_saved_late(SimpleNamespace(train_loop=loop, hooks=hooks, max_iters=18))
    assert len(told) == late and all("training has 18: only its end is saved" in text for text in told)


def test_files_and_later_steps_are_left_to_others(tmp_path):
    config = Config(dict(model={}, work_dir=str(tmp_path)))
    for error in (FileNotFoundError("x"), UserError("x"), MemoryError()):
        with pytest.raises(type(error)), explained_errors(config):
            raise error

    class Stepped:
        message_hub = SimpleNamespace(runtime_info=dict(iter=1))

    with pytest.raises(ValueError), explained_errors(config) as run:
        run.runner = Stepped()
        raise ValueError("x")


class _Torn(Dataset):
    """Images of which one ends the process that loads it, as a full memory does."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told_at_any_step(tmp_path):
    config = Config(dict(model={}, work_dir=str(tmp_path)))
    (tmp_path / "last_checkpoint").write_text("iter_4.pth")  # the sixth was being saved
    hub = SimpleNamespace(runtime_info=dict(iter=7, last_ckpt=f"{tmp_path}/iter_6.pth"))
    told = "killed by signal: Killed, .* fewer num_workers .* The last checkpoint is .*/iter_4.pth: --resume goes on"
    with pytest.raises(UserError, match=told), explained_errors(config) as run:
        run.runner = SimpleNamespace(message_hub=hub)
        list(DataLoader(_Torn(), num_workers=1))
    with pytest.raises(UserError, match="signal: Killed, as"), explained_errors(config):
        try:  # the signal comes while something else is done
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except RuntimeError:
            raise SyntaxError("Failed to parse the config file") from None
    for words, remedy in (("received 0 items of ancdata", "ulimit -n"), ("Bus error. It is possible", "--shm-size")):
        words = words if "ancdata" in words else f"DataLoader worker (pid 7) is killed by signal: {words}"
        with pytest.raises(UserError, match=remedy), explained_errors(config):
            raise RuntimeError(words)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("text", "'text'"), (None, "None"), (torch.tensor(3), r"tensor\(3\)"), ({"x": 1}, r"\{'x': 1\}"), (0.5, "0.5")],
)
def test_a_loss_that_cannot_be_added_is_named(value, shown, tmp_path):
    config = Config(dict(model={}, work_dir=str(tmp_path)))
    with pytest.raises(UserError, match=f"^model: loss extra is {shown}: what loss") as error, explained_errors(config):
        AnyModel().parse_losses(dict(loss_a=torch.tensor(1.0), extra=value))
    assert "float tensors" in str(error.value)


class AnyModel(BaseModel):
    def forward(self, inputs, data_samples=None, mode="tensor"):
        return inputs


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (dict(loss=1.0, note="hello"), "returns note='hello': everything"),
        (dict(attention=torch.zeros(4, 4)), r"returns attention=a Tensor of float32, shape \(4, 4\)"),
        (dict(loss=[1.0, 2.0]), r"returns loss=\[1.0, 2.0\]"),
        (dict(loss=dict(a=1.0)), "returns loss={'a': 1.0}"),
        (dict(loss=None), "returns loss=None"),
        (dict(z=torch.tensor(1j)), "returns z=a Tensor of complex64"),
        (torch.tensor(1.0), "returns a Tensor of float32.* must be a dict"),
        (dict(a=1, b=0.5, c=True, d=np.float64(2), e=np.ones(1), f=torch.ones(1), g=torch.tensor(2)), None),
        ({}, None),
        (None, None),
    ],
)
def test_what_cannot_be_logged_is_named(outputs, message):
    def look():
        CheckOutputsHook().after_train_iter(SimpleNamespace(model=AnyModel()), 0, None, outputs)

    if message is None:
        return look()
    with pytest.raises(UserError, match=message):
        look()
