"""What a config says of photos as a whole: how they are held, and whether unreadable ones are left out.

``image_orientation = "exif"`` or ``"stored"`` and ``skip_unreadable_images = 0.01`` at the top level of a config hold
for all its pipelines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from eyetoy_mm.datasets.image_files import check_rule
from eyetoy_mm.engine.hooks.images import CheckImagesHook
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import type_name

_IGNORE = "_ignore_orientation"
_LOADERS = ("LoadImageFromFile", "LoadImageFromNDArray", "InferencerLoader")


def apply_image_orientation(config: Config) -> None:
    """Let every step of a config that loads an image turn it, or leave it as stored, as ``image_orientation`` says.

    Masks and boxes are as the annotation has them, by either rule: what is loaded beside them follows.

    Args:
        config: Changed in place; left as it is where it has no ``image_orientation``.

    Raises:
        UserError: The rule is none, or a step cannot follow it.
    """
    rule = config.get("image_orientation")
    check_rule(rule)
    if rule is None:
        return
    for step in _loading_steps(list(config.values())):
        step["color_type"] = _color_type(step, rule)


def guard_images(config: Config) -> None:
    """Let a run check images as it loads them: add the hook for it, unless a config has one of its own.

    Args:
        config: Of the run; changed in place.

    Raises:
        UserError: ``image_orientation`` or ``skip_unreadable_images`` is none that there is.
    """
    hook = dict(
        type="eyetoy_mm.CheckImagesHook",
        orientation=config.get("image_orientation"),
        skip_unreadable=config.get("skip_unreadable_images", False),
    )
    CheckImagesHook(hook["orientation"], hook["skip_unreadable"])  # its faults are told now
    hooks = list(config.get("custom_hooks") or ())
    if all(given.get("type") != hook["type"] for given in hooks):
        config.custom_hooks = [*hooks, hook]


def _loading_steps(node: Any) -> Iterator[dict]:
    """Every step below ``node`` that loads an image, by its name or class."""
    if type_name(node) in _LOADERS:
        yield node
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    for value in inner:
        yield from _loading_steps(value)


def _color_type(step: dict, rule: str) -> str:
    """How a step has to read images to follow the rule."""
    color_type = step.get("color_type", "color")
    backend = step.get("imdecode_backend", "cv2")
    turns = backend in ("cv2", "pillow") and color_type != "unchanged"
    if rule == "exif" and not turns:
        raise UserError(
            f"image_orientation='exif' cannot be followed by {step['type']}(color_type={color_type!r}, "
            f"imdecode_backend={backend!r}), which never turns an image. Use color_type='color' or 'grayscale' and "
            "imdecode_backend='cv2', or write the photos turned"
        )
    base = color_type.removesuffix(_IGNORE)
    return base + _IGNORE if rule == "stored" and turns else base if turns else color_type
