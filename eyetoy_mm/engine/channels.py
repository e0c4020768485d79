"""Channels between a backbone and what stands on it: filled in where a config leaves them out, else checked.

For backbones that publish ``out_channels``, as ours do; configs of others are left alone. In all three toolboxes a neck
takes every map, or without one each head takes the last map, or those of its ``in_index``. A neck without
``in_channels``, such as mmpretrain's ``GlobalAveragePooling``, passes channels on; what stands on another is its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS

from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.errors import UserError

_HEADS = ("decode_head", "auxiliary_head", "head", "bbox_head", "rpn_head")


def match_channels(config: Config) -> None:
    """Fill in or check the ``in_channels`` of what takes the maps of the config's backbone, in place.

    Args:
        config: A config of mmseg, mmdet or mmpretrain.

    Raises:
        UserError: The backbone cannot be built, or does not have such channels or maps; the message has every key with
            its value and what it should be.
    """
    model = config.get("model") or {}
    scope = config.get("default_scope")
    channels = _out_channels(model.get("backbone"), scope)
    if channels is None:
        return
    mistakes = [_fit(key, part, channels, scope) for key, part in _takers(model, scope)]
    if any(mistakes):
        raise UserError(
            f"{model['backbone']['type']} gives {len(channels)} maps of {', '.join(map(str, channels))} channels, and "
            f"{'; '.join(filter(None, mistakes))}. Where in_channels is None or left out, it is taken from the backbone"
        )


def _fit(key: str, part: dict, channels: tuple[int, ...], scope: str | None) -> str | None:
    """Fill in the channels of a neck or head, or say what is wrong with those that it has."""
    given = part.get("in_channels")
    maps = _maps(key, given, part.get("in_index"), len(channels))
    which = maps if isinstance(maps, Sequence) else [maps]
    if not all(-len(channels) <= index < len(channels) for index in which):
        return f"{key}.in_index={maps} should be of the maps 0 to {len(channels) - 1}"
    if scope == "mmdet" and "_head" in key and len(set(channels)) > 1:
        return None  # without a neck such a head goes over every map: what made them alike is not known here
    expected = [channels[index] for index in which] if isinstance(maps, Sequence) else channels[maps]
    if given is None:
        part["in_channels"] = expected
    elif (list(given) if isinstance(given, Sequence) else given) != expected:
        return f"{key}.in_channels={given} should be {expected}"
    return None


def _out_channels(backbone: Any, scope: str | None) -> tuple[int, ...] | None:
    """Channels of a backbone's outputs; None where it does not tell them. It is built, without memory for weights."""
    kind = _class_of(backbone, scope)
    if kind is None or not issubclass(kind, StagedBackbone):
        return None
    arguments = {key: value for key, value in backbone.items() if key not in ("type", "init_cfg", "_scope_")}
    try:
        with torch.device("meta"):
            return kind(**arguments).out_channels
    except (TypeError, ValueError) as error:
        raise UserError(f"model.backbone, a {kind.__name__}, cannot be built: {error}") from error


def _takers(model: dict, scope: str | None) -> Iterator[tuple[str, dict]]:
    """What takes the backbone's outputs, and its key."""
    for key, neck in _parts("model.neck", model.get("neck")):
        if neck.get("in_channels") is not None or _takes_channels(neck, scope):
            yield key, neck
            return
    for name in _HEADS:
        for key, head in _parts(f"model.{name}", model.get(name)):
            if head.get("in_channels") is not None or _takes_channels(head, scope):
                yield key, head


def _maps(key: str, given: Any, in_index: Any, number: int) -> int | Sequence[int]:
    """The index of the map that a neck or head takes, or indices where it takes several."""
    if in_index is not None:
        return in_index
    takes_all = isinstance(given, Sequence) or (given is None and key.startswith("model.neck"))
    return range(number) if takes_all else -1


def _takes_channels(part: dict, scope: str | None) -> bool:
    kind = _class_of(part, scope)
    constructors = [vars(cls)["__init__"] for cls in getattr(kind, "__mro__", ()) if "__init__" in vars(cls)]
    return any("in_channels" in inspect.signature(constructor).parameters for constructor in constructors)


def _class_of(part: Any, scope: str | None) -> type | None:
    """The class that a config dict names; None where it is not a class, or not known."""
    kind: Any = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str):
        with MMENGINE_MODELS.switch_scope_and_registry(part.get("_scope_", scope)) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def _parts(key: str, given: Any) -> list[tuple[str, dict]]:
    """One part, or several in a list."""
    if isinstance(given, Sequence):
        return [(f"{key}[{index}]", part) for index, part in enumerate(given)]
    return [(key, given)] if isinstance(given, dict) else []
