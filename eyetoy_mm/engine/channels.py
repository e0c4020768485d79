"""Channels between a backbone and what stands on it: filled in where a config leaves them out, else checked.

For backbones that publish ``out_channels``, as ours do; configs of others are left alone. What the toolboxes do:

* a neck takes every map in order, or the last one, or passes channels on; which, is known of the kinds below, by name.
  Another neck is left alone, as is everything that stands on a neck that makes channels of its own;
* ``decode_head``, ``auxiliary_head`` and ``head`` take the map or maps of their ``in_index``, the last where they have
  none; ``panoptic_head`` and heads of MaskFormer's kind take every map;
* ``bbox_head`` and ``rpn_head`` without a neck go over every map, so they are for channels that are all alike.

These are looked for in ``model`` and, for semi-supervised learning, in its ``detector``. Heads inside of other parts,
such as a ``roi_head``, are not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS

from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.engine.config_places import explain
from eyetoy_mm.engine.skeletons import EmptyOnMeta
from eyetoy_mm.errors import UserError
from eyetoy_mm.layers.checks import is_whole

_HEADS = ("decode_head", "auxiliary_head", "head", "panoptic_head", "bbox_head", "rpn_head")
_NECKS_OF_EVERY_MAP = {
    *("FPN", "PAFPN", "FPN_CARAFE", "FPN_DropBlock", "FPG", "HRFPN", "NASFPN", "NASFCOS_FPN", "YOLOXPAFPN"),
    *("CSPNeXtPAFPN", "ChannelMapper", "SSH", "MultiLevelNeck", "MLANeck", "JPU", "HRFuseScales"),
}
_NECKS_OF_THE_LAST_MAP = {"DilatedEncoder", "CTResNetNeck"}
_NECKS_THAT_PASS_ON = {"GlobalAveragePooling", "GeneralizedMeanPooling", "ClsBatchNormNeck"}
_HEADS_OF_EVERY_MAP = {"MaskFormerHead", "Mask2FormerHead"}


def match_channels(config: Config) -> None:
    """Fill in or check the ``in_channels`` of what takes the maps of the config's backbone, in place.

    Args:
        config: A config of mmseg, mmdet or mmpretrain.

    Raises:
        UserError: The backbone cannot be built, or does not have such channels or maps; the message has every key with
            its value and what it should be.
    """
    scope = config.get("default_scope")
    model = config.get("model") or {}
    _match(model, "model", scope)
    _match(model.get("detector"), "model.detector", scope)


def _match(model: Any, key: str, scope: str | None) -> None:
    if not isinstance(model, dict):
        return
    channels = _out_channels(f"{key}.backbone", model.get("backbone"), scope)
    if channels is None:
        return
    mistakes = [mistake for mistake in _fit_all(model, key, channels, scope) if mistake is not None]
    if mistakes:
        maps = f"{len(channels)} map{'s' if len(channels) > 1 else ''} of {', '.join(map(str, channels))} channels"
        raise UserError(
            f"{model['backbone']['type']} gives {maps}, and "
            f"{'; '.join(mistakes)}. Set each of these keys so, also where a base config set it, or set in_channels to "
            "None: then it is taken from the backbone"
        )


def _fit_all(model: dict, key: str, channels: tuple[int, ...], scope: str | None) -> Iterator[str | None]:
    """What is wrong with each part that takes the backbone's maps, or None where nothing is, now."""
    for name, neck in _parts(f"{key}.neck", model.get("neck")):
        kind = getattr(_class_of(neck, scope), "__name__", None)
        if kind in _NECKS_OF_EVERY_MAP:
            yield _fit(name, neck, list(channels))
        elif kind in _NECKS_OF_THE_LAST_MAP:
            yield _fit(name, neck, channels[-1])
        elif _is_left_out(neck, scope):
            yield f"{name}.in_channels has to be given: which maps a {kind} takes is not known here"
        if kind not in _NECKS_THAT_PASS_ON:
            return
    for head_key in _HEADS:
        for name, head in _parts(f"{key}.{head_key}", model.get(head_key)):
            if not isinstance(head, dict):
                yield f"{name}={head!r} should be a dict"
            elif head.get("in_channels") is not None or "in_channels" in _parameters(head, scope):
                yield _fit_head(name, head_key, head, channels, scope)


def _fit_head(name: str, key: str, head: dict, channels: tuple[int, ...], scope: str | None) -> str | None:
    if key == "panoptic_head" or getattr(_class_of(head, scope), "__name__", None) in _HEADS_OF_EVERY_MAP:
        return _fit(name, head, list(channels))
    if key in ("bbox_head", "rpn_head"):
        return _fit(name, head, channels[0]) if len(set(channels)) == 1 else None
    index = head.get("in_index")
    if index is None:
        wants_several = isinstance(head.get("in_channels"), list | tuple) or head.get("input_transform")
        return None if wants_several else _fit(name, head, channels[-1])  # which they are, the class itself asks
    indices = index if isinstance(index, list | tuple) else [index]
    if not all(is_whole(one) and -len(channels) <= one < len(channels) for one in indices):
        return f"{name}.in_index={index!r} should be of the maps 0 to {len(channels) - 1}"
    several = [channels[one] for one in indices]
    return _fit(name, head, several if isinstance(index, list | tuple) else several[0])


def _fit(name: str, part: dict, expected: int | list[int]) -> str | None:
    """Fill in the channels of a neck or head, or say what is wrong with those that it has."""
    given = part.get("in_channels")
    if given is None:
        part["in_channels"] = expected
        return None
    fits = (list(given) if isinstance(given, list | tuple) else given) == expected
    return None if fits else f"{name}.in_channels={given!r} should be {expected}"


def _is_left_out(part: Any, scope: str | None) -> bool:
    """Whether a part has no channels, and its class cannot be built without."""
    parameter = _parameters(part, scope).get("in_channels")
    return parameter is not None and parameter.default is parameter.empty and part.get("in_channels") is None


def _out_channels(key: str, backbone: Any, scope: str | None) -> tuple[int, ...] | None:
    """Channels of a backbone's outputs; None where it does not tell them. It is built, without memory for weights."""
    kind = _class_of(backbone, scope)
    if kind is None or not issubclass(kind, StagedBackbone):
        return None
    arguments = {key: value for key, value in backbone.items() if key not in ("type", "init_cfg", "_scope_")}
    try:
        with EmptyOnMeta():
            return kind(**arguments).out_channels
    except (TypeError, ValueError) as error:
        raise UserError(str(explain(error, key, backbone, MMENGINE_MODELS).finding)) from error


def _parameters(part: Any, scope: str | None) -> dict[str, inspect.Parameter]:
    """Of the constructors of a part's class, also those that it hands its arguments on to."""
    found: dict[str, inspect.Parameter] = {}
    for cls in getattr(_class_of(part, scope), "__mro__", ()):
        if "__init__" in vars(cls):
            found = dict(inspect.signature(vars(cls)["__init__"]).parameters) | found
    return found


def _class_of(part: Any, scope: str | None) -> type | None:
    """The class that a config dict names; None where it is not a class, or not known."""
    kind: Any = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str):
        with MMENGINE_MODELS.switch_scope_and_registry(part.get("_scope_", scope)) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def _parts(key: str, given: Any) -> list[tuple[str, Any]]:
    """One part, or several in a list."""
    if isinstance(given, list | tuple):
        return [(f"{key}[{index}]", part) for index, part in enumerate(given)]
    return [(key, given)] if isinstance(given, dict) else []
