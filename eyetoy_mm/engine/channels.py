"""Channels between a backbone and what stands on it: filled in where a config leaves them out, checked where it says them.

For backbones that publish ``out_channels``, as ours do; configs of others are left alone. What is known of the
toolboxes: a neck, or without one the heads, take the backbone's maps. Necks that pass channels on (mmpretrain's
``GlobalAveragePooling``) are looked through; others take one number per map and give the heads channels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from eyetoy_mm.engine.errors import UserError

_PASSES_ON = ("GlobalAveragePooling", "GeneralizedMeanPooling")  # necks without `in_channels`: channels stay
_HEADS = ("decode_head", "auxiliary_head", "head", "bbox_head", "rpn_head")


def match_channels(config: Config) -> None:
    """Fill in and check, in place, the ``in_channels`` of what takes the maps of the config's backbone.

    Args:
        config: A config of mmseg, mmdet or mmpretrain.

    Raises:
        UserError: The backbone cannot be built, or channels that it does not have; the message has key, value and what
            it should be.
    """
    channels = _out_channels(config)
    if channels is None:
        return
    problems = []
    for key, part in _takers(config.model):
        expected = _expected(part, channels)
        if expected is None:
            continue
        if part.get("in_channels") is None:
            part["in_channels"] = expected
        elif _as_list(part["in_channels"]) != _as_list(expected):
            problems.append(f"{key}.in_channels={_plain(part['in_channels'])} should be {expected}")
    if problems:
        kind = config.model.backbone.type
        raise UserError(
            f"the backbone {kind} gives maps of {', '.join(map(str, channels))} channels: {'; '.join(problems)}. "
            "Say that, or leave in_channels out, and it is taken from the backbone"
        )


def _out_channels(config: Config) -> tuple[int, ...] | None:
    """Channels of the outputs of the config's backbone, built without memory; None where it does not tell them."""
    backbone = (config.get("model") or {}).get("backbone")
    if not isinstance(backbone, dict) or not backbone.get("type"):
        return None
    before = DefaultScope.get_current_instance()
    init_default_scope(config.get("default_scope") or "mmengine")
    kind: Any = backbone["type"]
    try:
        kind = MODELS.get(kind) if isinstance(kind, str) else kind
        if not hasattr(kind, "out_channels"):
            return None
        numbers = {key: value for key, value in backbone.to_dict().items() if key not in ("type", "init_cfg")}
        with torch.device("meta"):
            return tuple(kind(**numbers).out_channels)
    except (TypeError, ValueError) as error:
        raise UserError(f"model.backbone of the config cannot be built: {error}") from error
    finally:
        if before is not None:
            DefaultScope.get_instance(before.instance_name, scope_name=before.scope_name)


def _takers(model: dict) -> Iterator[tuple[str, dict]]:
    """What takes the backbone's outputs, with its key."""
    necks = _parts("model.neck", model.get("neck"))
    for key, neck in necks:
        if neck.get("type", "").rsplit(".", 1)[-1] not in _PASSES_ON:
            yield key, neck
            return
    for name in _HEADS:
        yield from _parts(f"model.{name}", model.get(name))


def _parts(key: str, given: Any) -> list[tuple[str, dict]]:
    """One part or several in a list."""
    if isinstance(given, list | tuple):
        return [(f"{key}[{index}]", part) for index, part in enumerate(given)]
    return [(key, given)] if isinstance(given, dict) else []


def _expected(part: dict, channels: tuple[int, ...]) -> int | list[int] | None:
    return None
