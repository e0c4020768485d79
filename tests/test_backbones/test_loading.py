"""Checkpoints in models: what of the backbone does not load is refused, the rest is told in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint

from eyetoy_mm.backbones import NAT, EyeToy
from eyetoy_mm.backbones.nat_checkpoints import to_official
from eyetoy_mm.backbones.pretrained import allow_missing
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.engine.launch import names_that_may_stay
from eyetoy_mm.errors import UserError

SMALL = dict(arch=None, embed_dims=8, depths=(1, 1), num_heads=(1, 1), kernel_size=3, mlp_ratio=1)


class Stack(BaseModule):
    """A backbone of others: numbered blocks, and norms of its maps as Swin and ConvNeXt call them."""

    def __init__(self, depth: int = 2, maps: tuple[int, ...] = (3,), channels: int = 4, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))
        self.bn = nn.BatchNorm1d(channels)
        for index in maps:
            self.add_module(f"norm{index}", nn.LayerNorm(channels))


class Model(BaseModule):
    """A backbone with a head."""

    def __init__(self, backbone: nn.Module, classes: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential()
        self.head.add_module("fc", nn.Linear(4, classes))


def ours(**kwargs: Any) -> Model:
    return Model(NAT(**(SMALL | kwargs)))


def theirs(classes: int = 3, **kwargs: Any) -> Model:
    return Model(Stack(**kwargs), classes)


def saved(content: Any, tmp_path: Path) -> str:
    torch.save(content, path := tmp_path / "weights.pth")
    return str(path)


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(x, state[key]) for key, x in model.state_dict().items() if "num_batches" not in key)


def without(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key.removeprefix(start): x for key, x in state.items() if key.startswith(start)}


def shuffled(model: nn.Module) -> dict[str, Tensor]:
    """Weights that no fresh model has."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.state_dict()


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "of a trainer": lambda state: {"model": state, "epoch": 3},
    "of DataParallel": lambda state: {"state_dict": {f"module.{key}": x for key, x in state.items()}},
    "of torch.compile": lambda state: {f"module._orig_mod.{key}": x for key, x in state.items()},
    "of Lightning": lambda state: {"state_dict": {f"model.{key}": x for key, x in state.items()}, "epoch": 3},
    "behind a key of its own": lambda state: {"net": state, "epoch": 3, "acc": 0.5},
    "beside its average": lambda state: {"model": state, "model_ema": {key: 0 * x for key, x in state.items()}},
    "without norms' counts": lambda state: {k: x for k, x in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [ours, theirs])
def test_every_form_of_a_file_loads(
    make: Callable[[], Model], form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, model = shuffled(make()), make()
    path = saved(FORMS[form](state), tmp_path)
    with caplog.at_level(logging.INFO, "eyetoy_mm"), allow_missing([]):
        checkpoint = load_checkpoint(model, path)
    assert same(model, state)
    backbone = len([key for key in state if key.startswith("backbone.") and "num_batches" not in key])
    assert ("has other tensors too, which are not used: model_ema" in caplog.text) == ("average" in form)
    record = [record for record in caplog.records if record.name == "eyetoy_mm.backbones.loading"][-1]
    assert (
        record.getMessage() == f"loaded {backbone} of {backbone} backbone tensors and 2 of 2 of the heads from {path}"
    )
    assert record.levelno == logging.INFO
    assert checkpoint["meta"] == {} and checkpoint["state_dict"].keys() == state.keys() - (
        {"backbone.bn.num_batches_tracked"} if "counts" in form else set()
    )


@pytest.mark.parametrize("make", [ours, theirs, lambda: Model(EyeToy("demo"))])
def test_the_backbones_own_file_loads_into_a_model(make: Callable[[], Model], tmp_path: Path) -> None:
    state, model = shuffled(make()), make()
    with allow_missing([]):
        load_checkpoint(model, saved(without(state, "backbone."), tmp_path))
    assert same(model.backbone, without(state, "backbone."))


@pytest.mark.parametrize("prefix", ["encoder_q.", "module.trunk.", "student.backbone."])
@pytest.mark.parametrize("make", [ours, theirs])
def test_a_backbone_behind_a_trainers_prefix_loads(make: Callable[[], Model], prefix: str, tmp_path: Path) -> None:
    """Into a model, and by `init_cfg`."""
    state, model = shuffled(make()), make()
    own = without(state, "backbone.")
    path = saved({f"{prefix}{key}": x for key, x in own.items()} | {"queue": torch.ones(2)}, tmp_path)
    with allow_missing([]):
        load_checkpoint(model, path)
        assert same(model.backbone, own)
        if make is ours:
            backbone = NAT(**SMALL, init_cfg=dict(type="Pretrained", checkpoint=path))
        else:
            backbone = theirs(init_cfg=dict(type="Pretrained", checkpoint=path)).backbone
        backbone.init_weights()
    assert same(backbone, own)


@pytest.mark.parametrize("make", [ours, theirs])
def test_which_of_several_is_meant_is_not_guessed(make: Callable[[], Model], tmp_path: Path) -> None:
    own = without(shuffled(make()), "backbone.")
    twice = {f"{name}.backbone.{key}": x for name in ("student", "teacher") for key, x in own.items()}
    with allow_missing([]):
        with pytest.raises(
            CheckpointError, match=r"2 times, behind 'student.backbone.', 'teacher.backbone.'. Name one"
        ):
            load_checkpoint(make(), path := saved(twice, tmp_path))
        model = make()
        model.backbone.init_cfg = dict(type="Pretrained", checkpoint=path, prefix="teacher.backbone.")
        model.backbone.init_weights()
        assert same(model.backbone, own)
        with pytest.raises(CheckpointError, match=r"tensors behind 'student', 'teacher', and nothing says which"):
            load_checkpoint(make(), saved({"student": own, "teacher": own, "epoch": 1}, tmp_path))


def test_published_names_load_into_a_model(tmp_path: Path) -> None:
    state, model = shuffled(ours(out_indices=(1,))), ours(out_indices=(1,))
    load_checkpoint(model, saved(to_official(state), tmp_path))
    assert same(model, state)


def test_a_models_file_loads_into_one_of_ours_alone(tmp_path: Path) -> None:
    state, backbone = shuffled(ours()), NAT(**SMALL)
    load_checkpoint(backbone, saved({"state_dict": state}, tmp_path))
    assert same(backbone, without(state, "backbone."))


def test_every_tool_takes_published_names_and_files_without_meta(tmp_path: Path) -> None:
    state, model = shuffled(ours(out_indices=(1,))), ours(out_indices=(1,))
    for names in (state, to_official(state)):
        check_fits(model, saved(names, tmp_path))
    with pytest.raises(UserError, match="does not fit the model of this config: 2 missing"):
        check_fits(model, saved(without(state, "backbone."), tmp_path))


@pytest.mark.parametrize("prefix", [None, "backbone"])
def test_a_models_file_initialises_its_backbone(prefix: str | None, tmp_path: Path) -> None:
    state = shuffled(theirs())
    init_cfg = dict(type="Pretrained", checkpoint=saved({"state_dict": state}, tmp_path), prefix=prefix)
    model = theirs(init_cfg=init_cfg)
    with allow_missing([]):
        model.backbone.init_weights()
    assert same(model.backbone, without(state, "backbone."))


def test_heads_of_other_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(shuffled(theirs(classes=150)) | {"neck.conv.weight": torch.ones(2)}, tmp_path)
    with allow_missing([]):
        load_checkpoint(theirs(classes=7), path)
    assert caplog.messages[-1] == (
        f"loaded 10 of 10 backbone tensors and 0 of 2 of the heads from {path}; not loaded: head.fc (150 -> 7); "
        "not in the model: neck.conv"
    )
    assert caplog.records[-1].levelno == logging.WARNING


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing fits": (lambda: {"a.weight": torch.ones(2)}, r"nothing of it fits this Model. The file has a.weight; the"),
    "heads alone": (
        lambda: {"head.fc.weight": torch.ones(3, 4), "head.fc.bias": torch.ones(3)},
        r"does not fit the backbone, of 10 tensors: 10 missing \(backbone.bn.bias, .* and 4 more\)",
    ),
    "fewer blocks": (lambda: theirs(depth=1).state_dict(), r"2 missing \(backbone.layers.1.bias, backbone.layers.1.w"),
    "more blocks": (lambda: theirs(depth=3).state_dict(), r"2 of more blocks than the model has \(backbone.layers.2.w"),
    "more blocks, bare": (lambda: Stack(depth=3).state_dict(), r"2 of more blocks than the model has"),
    "wider": (lambda: Model(Stack(channels=6)).state_dict(), r"of another shape \(backbone.bn.bias 6 -> 4, "),
    "other names": (
        lambda: {f"encoder.{key}s": x for key, x in Stack().state_dict().items()},
        "nothing of it fits this Model. The file has encoder.layers",
    ),
    "no tensors": (lambda: {"state_dict": {}}, "has no tensors: it is a dict without entries"),
    "not numbers": (
        lambda: theirs().state_dict() | {"backbone.layers.0.bias": torch.full((4,), torch.nan)},
        "1 tensors that cannot be weights: backbone.layers.0.bias: NaN or infinite",
    ),
    "statistics that are none": (
        lambda: theirs().state_dict() | {"backbone.bn.running_var": torch.full((4,), -0.5)},
        "1 tensors that cannot be weights: backbone.bn.running_var: variances of down to -0.5",
    ),
    "larger than any": (
        lambda: theirs().state_dict() | {"backbone.layers.0.bias": torch.full((4,), 1e30)},
        "1 tensors that cannot be weights: backbone.layers.0.bias: numbers of up to 1e",
    ),
    "zeros": (
        lambda: {key: torch.zeros_like(x) for key, x in theirs().state_dict().items()},
        "has no weights: each of its 2 matrices and kernels is one number, such as backbone.layers.0.weight is 0 ever",
    ),
    "not tensors": (lambda: {"epoch": 3, "net": {}}, "epoch, net should be tensors with a name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_backbone_that_does_not_load_is_refused(name: str, tmp_path: Path) -> None:
    make, message = WRONG[name]
    with allow_missing([]), pytest.raises(CheckpointError, match=message):
        load_checkpoint(theirs(), saved(make(), tmp_path))


@pytest.mark.parametrize("name", ["nothing fits", "heads alone"])
def test_one_of_ours_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit this NAT, and nothing was loaded"):
        load_checkpoint(ours(), saved(WRONG[name][0](), tmp_path))


def test_one_number_throughout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All of it is refused in every way to load, a part is told: a layer may have been left out of a training."""
    for make in (ours, theirs):
        model = make()
        state = shuffled(model)
        path = saved({key: torch.full_like(x, 1) for key, x in state.items()}, tmp_path)
        for load in (load_checkpoint, check_fits):
            with allow_missing([]), pytest.raises(CheckpointError, match=r"has no weights: .* is 1 everywhere"):
                load(make(), path)
        key = next(key for key, x in state.items() if x.dim() > 1)
        path = saved(state | {key: torch.zeros_like(state[key])}, tmp_path)
        with allow_missing([]):
            load_checkpoint(make(), path)
        assert "matrices and kernels are one number throughout: " in caplog.text
        caplog.clear()


def test_a_module_that_fails_at_a_file(tmp_path: Path) -> None:
    """As those do that fit their tables to another size."""

    def fit(state: dict[str, Tensor], *args: Any) -> None:
        _, _heads = state["backbone.layers.0.bias"].shape

    model = theirs()
    model.register_load_state_dict_pre_hook(lambda module, state, *args: fit(state))
    path = saved(shuffled(theirs()), tmp_path)
    with (
        allow_missing([]),
        pytest.raises(CheckpointError, match=r"does not fit this Model, which fails at it: ValueError: not"),
    ):
        load_checkpoint(model, path)


def test_what_is_told_to_be_named_is_no_more_than_what_is_missing(tmp_path: Path) -> None:
    """A tensor of the backbone itself has no module: to name that would be to allow everything."""
    model = theirs()
    model.backbone.positions = nn.Parameter(torch.ones(1, 3, 4))
    with allow_missing([]), pytest.raises(CheckpointError, match=r"load_from_allow_missing = \['backbone.positions', "):
        load_checkpoint(model, saved(shuffled(theirs()), tmp_path))


@pytest.mark.parametrize("name", ["fewer blocks", "nothing fits"])
def test_one_of_others_is_told_outside_of_our_training(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_checkpoint(theirs(), path := saved(WRONG[name][0](), tmp_path))
    counts = {
        "fewer blocks": "8 of 10 backbone tensors and 2 of 2",
        "nothing fits": "0 of 10 backbone tensors and 0 of 2",
    }
    assert caplog.messages[-1].startswith(f"loaded {counts[name]} of the heads from {path}; not in the file: ")


def test_init_cfg_is_refused_too(tmp_path: Path) -> None:
    path = saved(theirs(depth=1).state_dict(), tmp_path)
    for prefix in (None, "backbone."):
        model = theirs(init_cfg=dict(type="Pretrained", checkpoint=path, prefix=prefix))
        with allow_missing([]), pytest.raises(CheckpointError, match=r"of 10 tensors: 2 missing \(layers.1.bias"):
            model.backbone.init_weights()
    model = theirs(init_cfg=dict(type="Pretrained", checkpoint=path, prefix="encoder"))
    with allow_missing([]), pytest.raises(CheckpointError, match="no name starts with 'encoder'"):
        model.backbone.init_weights()


@pytest.mark.parametrize("pattern", ["backbone.layers.1", "backbone.layers.1.*", "backbone.*"])
def test_what_is_named_may_stay(pattern: str, tmp_path: Path) -> None:
    state, model = shuffled(theirs(depth=1)), theirs()
    fresh = model.backbone.layers[1].weight.clone()
    path = saved(state, tmp_path)
    with allow_missing([pattern]):
        load_checkpoint(model, path)
        theirs(init_cfg=dict(type="Pretrained", checkpoint=path)).backbone.init_weights()
    assert torch.equal(model.backbone.layers[1].weight, fresh)
    assert torch.equal(model.backbone.layers[0].weight, state["backbone.layers.0.weight"])
    with allow_missing(["backbone.layers.0", "layers"]), pytest.raises(CheckpointError):
        load_checkpoint(theirs(), path)


def test_what_is_named_may_stay_in_ours(tmp_path: Path) -> None:
    path = saved(ours(kernel_size=5).state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=r"2 of another shape \(levels.0.blocks.0.attn.rpb"):
        load_checkpoint(ours(), path)
    with (
        allow_missing([]),
        pytest.raises(CheckpointError, match=r"allow_missing = \['backbone.levels.0.blocks.0.attn'"),
    ):
        load_checkpoint(ours(), path)
    model = ours()
    fresh = model.backbone.levels[0].blocks[0].attn.rpb.clone()
    with allow_missing(["backbone.*.rpb"]):
        load_checkpoint(model, path)
        NAT(**SMALL, init_cfg=dict(type="Pretrained", checkpoint=path)).init_weights()
    assert torch.equal(model.backbone.levels[0].blocks[0].attn.rpb, fresh)


def test_a_classifiers_file_leaves_the_norms_of_other_maps_fresh(tmp_path: Path) -> None:
    state, model = shuffled(theirs()), theirs(maps=(0, 1, 2, 3))
    with allow_missing([]):
        load_checkpoint(model, saved(state, tmp_path))
        assert torch.equal(model.backbone.norm3.weight, state["backbone.norm3.weight"])
        with pytest.raises(CheckpointError, match=r"2 missing \(backbone.norm2"):
            load_checkpoint(model, saved(theirs(maps=(0, 1, 3)).state_dict(), tmp_path))


def test_a_model_without_a_backbone_needs_something(tmp_path: Path) -> None:
    with allow_missing([]):
        load_checkpoint(nn.Linear(2, 2), saved({"weight": torch.ones(2, 2)}, tmp_path))
        with pytest.raises(CheckpointError, match="nothing of it fits this Linear"):
            load_checkpoint(nn.Linear(2, 2), saved({"a": torch.ones(2, 2)}, tmp_path))


def test_strict_stays_mmengines(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="do not match exactly"):
        load_checkpoint(theirs(), saved(theirs(depth=1).state_dict(), tmp_path), strict=True)


def test_names_of_the_file_are_revised_first(tmp_path: Path) -> None:
    state, model = shuffled(theirs()), theirs()
    path = saved({key.replace("backbone", "encoder"): x for key, x in state.items()}, tmp_path)
    with allow_missing([]):
        load_checkpoint(model, path, revise_keys=[(r"^encoder\.", "backbone.")])
    assert same(model, state)


@pytest.mark.parametrize("names", ["backbone", [3], [""]])
def test_names_that_may_stay_are_a_list(names: Any) -> None:
    with pytest.raises(UserError, match="load_from_allow_missing must be a list of names"):
        names_that_may_stay(Config(dict(load_from_allow_missing=names)))
    assert names_that_may_stay(Config(dict())) == []
