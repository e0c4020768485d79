"""Checkpoints for whole models, and for backbones of others: all of the backbone or an error, and one line of counts.

mmengine hands its loading over to :func:`load_checkpoint` (:mod:`eyetoy_mm.compat.partial_loading`). A backbone of ours
loads whole or the load is refused, wherever that happens; a backbone of others within :func:`.allow_missing`, as in
``eyetoy train``, and elsewhere with the line alone. What is not of the backbone is the line's: heads for other classes
start fresh when a model is fine-tuned.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from eyetoy_mm.backbones.pretrained import check_vary, every_backbone_is_checked, fitting, is_allowed
from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.errors import first_few
from eyetoy_mm.state_dicts import (
    WRAPPINGS,
    Loaded,
    State,
    behind,
    load_fitting,
    meta_of,
    sets_of_tensors,
    split,
    unusable,
    unwrap,
    version,
    with_versions_of,
)

_log = logging.getLogger(__name__)


def load_checkpoint(
    model: nn.Module,
    checkpoint: Any,
    source: str,
    revise_keys: Sequence[tuple[str, str]] = (),
    prefix: str | None = None,
    of_module: bool = False,
) -> bool:
    """Load a checkpoint into a model, under the names that the model has; log in one line what was loaded.

    Args:
        model: A model, or a part of one.
        checkpoint: As a loader gave it. It becomes what mmengine saves, a dict with ``state_dict`` and ``meta``.
        source: Its file or address, for messages.
        revise_keys: Patterns and what replaces them in the names of the file.
        prefix: What stands before the names that are wanted; None for all.
        of_module: The file was given for the module itself, as ``init_cfg`` does: all of it is to be loaded.

    Returns:
        False where mmengine should load, because parts of the model are wrapped each for themselves, or because the
        file is no dict of named tensors and the model has no backbone that is checked.

    Raises:
        CheckpointError: What does not load of a backbone that is checked.
    """
    model = unwrapped(model)
    parts = dict(_backbones(model))
    ours = any(isinstance(part, StagedBackbone) for part in parts.values())
    checked = ours or every_backbone_is_checked()
    if any(is_model_wrapper(part) for part in model.modules()):
        return False
    others = [key for key in sets_of_tensors(checkpoint) if key not in (*WRAPPINGS, "ema_state_dict")]
    try:
        prepare(model, checkpoint, source, revise_keys, prefix)
    except CheckpointError:
        if checked:
            raise
        return False
    state = checkpoint["state_dict"]
    if others := [key for key in others if key in checkpoint]:
        _log.warning("%s has other tensors too, which are not used: %s", source, ", ".join(others))
    if checked and (bad := unusable(state, _learned(model))):
        raise CheckpointError(f"{source} has {len(bad)} tensors that cannot be weights: {first_few(bad, 8)}")
    try:
        loaded = load_fitting(model, state)
    except Exception as error:  # of a module that fits tensors to its size, as tables of positions
        if not checked:
            raise
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"{source} does not fit this {type(model).__name__}, which fails at it: {told}"
        ) from error
    roots = [f"{name}." if name else "" for name in parts] or ([""] if of_module else [])
    if checked:
        _refuse(model, parts, roots, loaded, state, source)
        if not ours:  # `fitting` has looked at these
            check_vary(state, [name for name in _names(model) if name.startswith(tuple(roots))], source)
    _log.log(*_line(model, roots, loaded, source))
    return True


def prepare(
    model: nn.Module,
    checkpoint: Any,
    source: str,
    revise_keys: Sequence[tuple[str, str]] = (),
    prefix: str | None = None,
) -> None:
    """Make of a checkpoint what mmengine saves, with the names of the model; a second call changes nothing.

    Raises:
        CheckpointError: It is not a dict of named tensors, or not all of a backbone of ours.
    """
    state = unwrap(checkpoint, source)
    for pattern, replacement in revise_keys:
        state = with_versions_of(state, {re.sub(pattern, replacement, key): x for key, x in state.items()})
    if prefix is not None:
        found, rest = split(state, prefix)
        if not found:
            raise CheckpointError(f"{source}: no name starts with {prefix!r}, but {first_few(rest, 8)}")
        state = found
    model = unwrapped(model)
    state = named_as_in(model, state, source)
    for name, part in _backbones(model):
        if isinstance(part, StagedBackbone):
            own, rest = split(state, name)
            state = _joined(state, rest, f"{name}." if name else "", fitting(part, own, source))
    if not any(key in WRAPPINGS for key in checkpoint):  # bare tensors, or behind another key: they are in `state`
        sets = sets_of_tensors(checkpoint)
        for key in [key for key, x in checkpoint.items() if isinstance(x, Tensor) or key in sets]:
            del checkpoint[key]
    checkpoint["state_dict"] = state
    checkpoint["meta"] = meta_of(checkpoint)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it is wrapped for several processes or for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule("module")
    return model


# --- Names ------------------------------------------------------------------------------------------------------------


def _backbones(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that are backbones, by their name: what is called so in the field, and ours."""
    if isinstance(model, StagedBackbone) or name.split(".")[-1] == "backbone":
        yield name, model
        return
    for child, module in model.named_children():
        yield from _backbones(module, f"{name}.{child}" if name else child)


def named_as_in(model: nn.Module, state: State, source: str) -> State:
    """The tensors of a file under the names that they have in a model.

    A file may be of a whole model or of its backbone alone, whatever the model is, and behind a prefix of its trainer;
    backbones of ours take what their ``split`` takes, published names too, and what earlier versions of theirs saved.

    Raises:
        CheckpointError: The backbone is in it several times, see :func:`.state_dicts.behind`.
    """
    parts = list(_backbones(model))
    if not parts:
        return _as_whole_or_as_backbone(model, _without_the_trainers_prefix(state, model, "", source), "backbone.")
    if len(parts) > 1:
        return _as_whole_or_as_backbone(model, state, "")
    [(name, part)] = parts
    prefix = f"{name}." if name else ""
    state = _without_the_trainers_prefix(state, part, prefix, source)
    if not isinstance(part, StagedBackbone):
        return _as_whole_or_as_backbone(model, state, prefix or "backbone.")
    has_prefix = any(key.startswith(prefix) for key in state)
    own, rest = part.split(state, prefix if prefix and has_prefix else None)
    if not prefix:
        rest = {}  # heads, where the backbone is all of the model
    return _joined(state, rest, prefix, part.migrate(own, version(own)))


def _without_the_trainers_prefix(state: State, part: nn.Module, prefix: str, source: str) -> State:
    """A backbone's names behind its own prefix, where a file has another; heads beside it lose what they have of it."""
    if any(prefix + name in state for name in list(part.state_dict())[:1]):
        return state
    there = behind(state, part.state_dict(), source)
    if there in (None, "", "backbone.", prefix):
        return state
    outer = there.removesuffix("backbone.")
    _log.info("%s: the names behind %r are those of the backbone", source, there)
    renamed = {
        prefix + key.removeprefix(there) if key.startswith(there) else key.removeprefix(outer): x
        for key, x in state.items()
    }
    return with_versions_of(state, renamed)


def _joined(state: State, rest: State, prefix: str, own: State) -> State:
    return with_versions_of(state, rest | {prefix + key: x for key, x in own.items()})


def _as_whole_or_as_backbone(model: nn.Module, state: State, prefix: str) -> State:
    names = _names(model)
    if names & state.keys():
        return state
    own, rest = split(state, prefix)
    if names & own.keys():  # a whole model's file, for its backbone
        return with_versions_of(own, own | {key: x for key, x in rest.items() if key not in own})
    parts = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return with_versions_of(state, {prefix + key if key.split(".")[0] in parts else key: x for key, x in state.items()})


def _names(model: nn.Module) -> set[str]:
    """Of its tensors, but for the batches that a norm has counted: no model of the field uses them."""
    return {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}


def _learned(model: nn.Module) -> State:
    """What training makes of a model: parameters, and the statistics of batch norms; other buffers may be infinite."""
    statistics = {name: x for name, x in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    return {**dict(model.named_parameters()), **statistics}


# --- What did not load ------------------------------------------------------------------------------------------------


def _refuse(
    model: nn.Module, parts: Mapping[str, nn.Module], roots: list[str], loaded: Loaded, state: State, source: str
) -> None:
    names = _names(model)
    failed = {*loaded.missing, *loaded.reshaped}
    if names <= failed:
        raise CheckpointError(
            f"{source}: nothing of it fits this {type(model).__name__}. The file has {first_few(state, 3)}; the model "
            f"has {first_few(sorted(names), 3)}. Is it of another model, or are its names behind another prefix?"
        )
    modules = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
    norms = _norms_of_other_maps(loaded, roots, state)
    for root in roots:
        if isinstance(parts.get(root.removesuffix(".")), StagedBackbone):
            continue  # `fitting` has refused it, or allowed it
        lost = [name for name in sorted(failed - norms) if name.startswith(root)]
        deeper = [name for name in loaded.unexpected if name.startswith(root) and _is_of_a_deeper_model(name, modules)]
        lost, deeper = (
            [x for x in found if not is_allowed(x) and not is_allowed(_in_model(x, root))] for found in (lost, deeper)
        )
        if not lost and not deeper:
            continue
        told = {
            "missing": [name for name in lost if name not in loaded.reshaped],
            "of another shape": [
                f"{name} {_sizes(*loaded.reshaped[name])}" for name in lost if name in loaded.reshaped
            ],
            "of more blocks than the model has": deeper,
            "of other names": [name for name in loaded.unexpected if name not in deeper] if lost else [],
        }
        raise CheckpointError(
            f"{source} does not fit the backbone, of {sum(name.startswith(root) for name in names)} tensors: "
            f"{'; '.join(f'{len(x)} {what} ({first_few(x, 6)})' for what, x in told.items() if x)}. Is it of another "
            "arch or of other numbers? What may stay as it was initialised has to be named in the config: "
            f"load_from_allow_missing = [{_in_model(_to_allow([*lost, *deeper][0], root), root)!r}, ...]"
        )


def _to_allow(name: str, root: str) -> str:
    """The module of a tensor, or where that is all of the backbone, the tensor."""
    module = _module(name)
    return name if f"{module}." == root else module


def _in_model(name: str, root: str) -> str:
    """The name in a whole model, where the module is the backbone itself."""
    return name if root else f"backbone.{name}"


def _norms_of_other_maps(loaded: Loaded, roots: list[str], state: State) -> set[str]:
    """Norms of maps that a classifier does not have: its file has one, of the last map, ``norm3.``."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, roots))})norm(\d+)\.")
    there = {match[2] for name in state if (match := pattern.match(name))}
    return {name for name in loaded.missing if pattern.match(name)} if len(there) == 1 else set()


def _is_of_a_deeper_model(name: str, modules: set[str]) -> bool:
    """Whether a tensor is of a block beyond the last that the model has, as ``layer3.6.conv1.weight``."""
    parents = name.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        if ".".join(parents[:depth]) not in modules:
            return parents[depth - 1].isdigit() and depth > 1
    return False


# --- The line ---------------------------------------------------------------------------------------------------------


def _line(model: nn.Module, roots: list[str], loaded: Loaded, source: str) -> tuple[int, str]:
    """Level and text of what was loaded and what was not."""
    names, failed = _names(model), {*loaded.missing, *loaded.reshaped}
    backbone = {name for name in names if name.startswith(tuple(roots))} if roots else set()
    parts = {"backbone tensors": backbone, "of the heads" if backbone else "tensors": names - backbone}
    counts = [f"{len(part - failed)} of {len(part)} {what}" for what, part in parts.items() if part]
    details = {
        "not loaded": dict.fromkeys(f"{_module(name)} ({_sizes(*both)})" for name, both in loaded.reshaped.items()),
        "not in the file": dict.fromkeys(map(_module, loaded.missing)),
        "not in the model": dict.fromkeys(map(_module, loaded.unexpected)),
    }
    text = "".join(f"; {what}: {first_few(found)}" for what, found in details.items() if found)
    return logging.WARNING if failed else logging.INFO, f"loaded {' and '.join(counts)} from {source}{text}"


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _sizes(there: list[int], here: list[int]) -> str:
    """Classes, where all else is equal; otherwise both shapes."""
    if there[1:] == here[1:] and there and here:
        return f"{there[0]} -> {here[0]}"
    return f"{tuple(there)} -> {tuple(here)}"
