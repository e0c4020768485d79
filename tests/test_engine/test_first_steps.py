"""What only computing or the data show to be wrong: told by the key of the config, before or in the first step."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from benchmarks.fuzz_configs import small_config
from eyetoy_mm.engine.config_options import merge_options
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import CheckOutputsHook
from eyetoy_mm.engine.loop_checks import check_loops
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
