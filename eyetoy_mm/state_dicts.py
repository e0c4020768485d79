"""State dicts: what is in a file, what a model has, how they differ, and how that is told. Needs torch alone.

A state dict of torch is an ``OrderedDict`` with an attribute ``_metadata``: for every module, by its name, the
``_version`` of its class when it was saved. ``mmengine`` keeps it in what a Runner saves, loads and averages (EMA), and
loses it where it takes a prefix off; files of others may have none. :func:`unwrap` and :func:`split` keep it, and what
has no version is of the first.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.errors import first_few

State = dict[str, Tensor]
WRAPPINGS = ("state_dict", "model", "model_state_dict")
"""Keys behind which trainers keep the tensors of a model, beside those of its training."""

# --- Tensors in shards ------------------------------------------------------------------------------------------------


def local_part(x: Tensor) -> Tensor:
    """Of a tensor that is sharded over processes (DTensor) the part that is here; any other as it is."""
    to_local = getattr(x, "to_local", None)
    return x if to_local is None else to_local()


def gathered(x: Tensor) -> Tensor:
    """A tensor that is sharded over processes in one piece, in which all of them take part; any other as it is."""
    full_tensor = getattr(x, "full_tensor", None)
    return x if full_tensor is None else full_tensor()


# --- Reading ----------------------------------------------------------------------------------------------------------


def unwrap(loaded: object, filename: str) -> State:
    """Named tensors of a loaded checkpoint, without what trainers wrap around them.

    Args:
        loaded: What a loader gave: the tensors, or a dict that has them behind one of :data:`WRAPPINGS`, or behind a
            key of another name if there is one of these alone.
        filename: Of the file, for messages.

    Raises:
        CheckpointError: It is not a dict of named tensors, or has several.
    """
    for wrapping in WRAPPINGS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapping), Mapping):
            loaded = loaded[wrapping]
    sets = sets_of_tensors(loaded)
    if len(sets) > 1:
        raise CheckpointError(
            f"{filename} has tensors behind {', '.join(map(repr, sets))}, and nothing says which are meant. Save those "
            f"alone: torch.save(torch.load({filename!r})[{sets[0]!r}], 'weights.pth')"
        )
    if isinstance(loaded, Mapping) and sets:
        loaded = loaded[sets[0]]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{filename}: not a dict of named tensors but {type(loaded).__name__}")
    if not loaded:
        raise CheckpointError(f"{filename} has no tensors: it is a dict without entries")
    others = [str(key) for key, value in loaded.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{filename}: {first_few(others, 8)} should be tensors with a name, and are not")
    return _without_prefix(loaded, _metadata(loaded), "module.")


def meta_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says beside its weights: names of classes and the like; a file from elsewhere has none.

    Args:
        checkpoint: As it was read.

    Returns:
        ``meta``, without what of it is of another form than OpenMMLab writes: classes that are no list of names.
    """
    meta = checkpoint.get("meta")
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    of_data = meta.get("dataset_meta")
    if not (isinstance(of_data, Mapping) and isinstance(of_data.get("classes") or (), list | tuple)):
        meta.pop("dataset_meta", None)
    if not isinstance(meta.get("CLASSES"), list | tuple):  # OpenMMLab's before 2.0
        meta.pop("CLASSES", None)
    return meta


def sets_of_tensors(loaded: object) -> list[str]:
    """The keys of a dict behind each of which there are named tensors: of a network, of its average, of a teacher."""
    if not isinstance(loaded, Mapping):
        return []
    return [str(key) for key, inside in loaded.items() if _are_named_tensors(inside)]


def _are_named_tensors(inside: object) -> bool:
    return (
        isinstance(inside, Mapping)
        and bool(inside)
        and all(isinstance(key, str) and isinstance(x, Tensor) for key, x in inside.items())
    )


def split(state: Mapping[str, Tensor], prefix: str | None = None) -> tuple[State, State]:
    """A backbone's tensors under its own names, and the rest.

    Args:
        state: Tensors of a model, or of a backbone.
        prefix: What stands before the backbone's names; None takes ``"backbone."`` where there is such a name.
    """
    if prefix is None:
        prefix = "backbone." if any(key.startswith("backbone.") for key in state) else ""
    elif prefix and not prefix.endswith("."):
        prefix += "."
    own = {key: x for key, x in state.items() if key.startswith(prefix)}
    rest = {key: x for key, x in state.items() if not key.startswith(prefix)}
    inside = {name: x for name, x in _metadata(state).items() if f"{name}.".startswith(prefix)}
    return _without_prefix(own, inside, prefix), rest


def behind(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> str | None:
    """What stands before the names of a module in a file, as far as they are there.

    ``model.`` of Lightning, ``_orig_mod.`` of ``torch.compile``, ``encoder_q.`` of MoCo and the like are as good as
    ``backbone.`` where one of them has more than half of the names.

    Args:
        state: From the file.
        wanted: The module's own state dict.
        source: Of the file, for messages.

    Returns:
        The text before the names, empty for bare ones, which come first, as ``backbone.`` does; None where they are not
        there.

    Raises:
        CheckpointError: They are there several times, behind other names.
    """
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    first = names[0] if names else ""
    candidates = {key.removesuffix(first) for key in state if key == first or (first and key.endswith(f".{first}"))}
    found = sorted(prefix for prefix in candidates if 2 * sum(prefix + name in state for name in names) > len(names))
    usual = [prefix for prefix in ("", "backbone.") if prefix in found]
    if len(found) > 1 and not usual:
        raise CheckpointError(
            f"{source} has these weights {len(found)} times, behind {', '.join(map(repr, found))}. Name one of them: "
            f"init_cfg=dict(type='Pretrained', checkpoint={source!r}, prefix={found[0]!r}) of the backbone"
        )
    return next(iter(usual or found), None)


def with_versions_of(original: Mapping[str, Tensor], renamed: Mapping[str, Tensor]) -> State:
    """A state dict of the renamed tensors, from the same versions as the original."""
    found = OrderedDict(renamed)
    found._metadata = _metadata(original)  # type: ignore[attr-defined]
    return found


def version(state: Mapping[str, Tensor]) -> int:
    """The ``_version`` of the module whose state it is; 1 where that is not known."""
    return _metadata(state).get("", {}).get("version") or 1


def migrated(state: State, model: nn.Module) -> State:
    """The tensors as the model names them now: a part of it that has a ``migrate`` renames what is its own."""
    for name, part in model.named_modules():
        migrate = getattr(part, "migrate", None)
        if migrate is not None:
            prefix = f"{name}." if name else ""
            own, rest = split(state, prefix)
            today = {prefix + key: x for key, x in migrate(own, version(own)).items()}
            state = with_versions_of(state, rest | today)
    return state


def _metadata(state: object) -> dict[str, dict[str, Any]]:
    return getattr(state, "_metadata", None) or {}


def _without_prefix(state: Mapping[str, Tensor], metadata: Mapping[str, dict[str, Any]], prefix: str) -> State:
    found: OrderedDict[str, Tensor] = OrderedDict((key.removeprefix(prefix), x) for key, x in state.items())
    modules = OrderedDict((f"{name}.".removeprefix(prefix).removesuffix("."), x) for name, x in metadata.items())
    found._metadata = modules  # type: ignore[attr-defined]
    return found


# --- Comparing --------------------------------------------------------------------------------------------------------


_LARGEST = 1e12  # no weight of a training; its square is near the end of float32's numbers


def unusable(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What cannot be weights, with the reason: without values, of another kind of number, NaN, infinite or negative.

    Args:
        state: From a file.
        wanted: The model's own state dict; its floating-point tensors are looked at.
    """
    reasons = {key: _reason(key, x) for key, x in state.items() if key in wanted and wanted[key].is_floating_point()}
    return [f"{key}: {reason}" for key, reason in reasons.items() if reason]


def constant_weights(state: Mapping[str, Tensor], names: Collection[str]) -> tuple[list[str], int]:
    """Matrices and kernels that have one number throughout, as no training leaves them, and how many there are in all.

    A file that was written in part, or made to have the right names and shapes, has them; norms and biases may.

    Args:
        state: From a file, of numbers that :func:`unusable` has let pass.
        names: Which of them to look at.
    """
    tensors = {key: local_part(x) for key, x in state.items() if key in names and x.is_floating_point()}
    weights = {key: x for key, x in tensors.items() if x.dim() > 1 and x.numel() > 1}
    return [key for key, x in weights.items() if bool((x == x.flatten()[0]).all())], len(weights)


def _reason(key: str, x: Tensor) -> str | None:
    if x.is_meta:
        return "without values, on the meta device"
    if not x.is_floating_point():
        return f"{x.dtype}, not floating point"
    if x.layout != torch.strided:
        return f"{x.layout}, not strided"
    x = local_part(x)
    x = x.float() if x.element_size() == 1 else x  # of 8 bits, for which torch has few operators
    if not x.numel():
        return None
    low, high = (float(limit) for limit in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        return "NaN or infinite"
    if max(-low, high) > _LARGEST:
        return f"numbers of up to {max(-low, high):.2g}"
    return f"variances of down to {low:.2g}" if key.endswith("running_var") and low < 0 else None


@dataclass(frozen=True)
class Difference:
    """Names in which tensors differ from what a model has; true where there are any, and a text that names them."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    """With both shapes."""

    def __bool__(self) -> bool:
        return any((self.missing, self.unexpected, self.reshaped))

    def __str__(self) -> str:
        told = {"missing": self.missing, "not in the model": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(f"{len(names)} {what} ({first_few(names, 8)})" for what, names in told.items() if names)


def compare(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Difference:
    """How tensors differ from those of a model.

    Args:
        state: From a file.
        wanted: The model's own state dict.
    """
    return Difference(
        missing=[key for key in wanted if key not in state],
        unexpected=[key for key in state if key not in wanted],
        reshaped=[
            f"{key} {tuple(x.shape)} for {tuple(wanted[key].shape)}"
            for key, x in state.items()
            if key in wanted and x.shape != wanted[key].shape
        ],
    )


# --- Loading ----------------------------------------------------------------------------------------------------------

_ANOTHER_SHAPE = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)")


@dataclass(frozen=True)
class Loaded:
    """What did not load: of the module and not in the file, the other way round, and of both with another shape."""

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[list[int], list[int]]]
    """Shapes in the file and in the module."""


def load_fitting(module: nn.Module, state: Mapping[str, Tensor]) -> Loaded:
    """Load what fits, as the module itself loads: with what its hooks rename, resize or add.

    Args:
        module: It is changed.
        state: Tensors under its names.

    Raises:
        RuntimeError: A tensor cannot be copied for another reason than its shape; in torch's words.
    """
    reshaped = {}
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        found = _ANOTHER_SHAPE.findall(str(error))
        reshaped = {name: (_sizes(there), _sizes(here)) for name, there, here in found}
        if not reshaped:
            raise
        fitting = with_versions_of(state, {key: x for key, x in state.items() if key not in reshaped})
        result = module.load_state_dict(fitting, strict=False)
    # A batch norm's count of batches is used by none of the field's models, and older files have none.
    missing = [key for key in result.missing_keys if key not in reshaped and not key.endswith("num_batches_tracked")]
    return Loaded(missing, list(result.unexpected_keys), reshaped)


def _sizes(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number.strip()]
