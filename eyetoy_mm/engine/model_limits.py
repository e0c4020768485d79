"""Numbers of a model by which it trains on nothing, finds nothing, or learns what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import mmcv.ops
from mmengine.config import Config
from mmengine.registry import MODELS

from eyetoy_mm.compat import mmcv_ops
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_parts import evaluators_of
from eyetoy_mm.engine.config_places import argument_findings, at, class_of, dicts_in
from eyetoy_mm.layers.checks import is_whole
from eyetoy_mm.registry import type_name


class _Limit(NamedTuple):
    """What the numbers of some names may be.

    Args:
        names: A pattern of the whole name.
        fits: Whether a finite number may be one.
        wanted: What it should be, and what comes of others.
    """

    names: re.Pattern[str]
    fits: Callable[[Any], bool]
    wanted: str


_LIMITS = (
    _Limit(
        re.compile("max_per_img|max_per_image|nms_pre"),
        lambda x: is_whole(x) and (x >= 1 or x == -1),
        "should be how many are kept: a whole number, 1 or more, or -1 for all",
    ),
    _Limit(
        re.compile("max_num|nms_post|top_?k|candidate_topk"),
        lambda x: is_whole(x) and x >= 1,
        "should be how many are kept: a whole number, 1 or more",
    ),
    _Limit(
        re.compile("(.*_)?(score_thr|pseudo_thr|filter_thr|object_mask_thr|mask_thr|mask_thr_binary)"),
        lambda x: x < 1,
        "should be below 1: no score is above it, and nothing would be left",
    ),
    _Limit(
        re.compile("iou_thr(eshold)?"),
        lambda x: 0 <= x <= 1,
        "should be an overlap from 0 to 1",
    ),
    _Limit(
        re.compile("pos_iou_thr"),
        lambda x: 0 < x <= 1,
        "should be an overlap above 0 and up to 1, from which on a box counts as an object",
    ),
)
_OF_LAYERS = (
    _Limit(
        re.compile("dropout_ratio|dropout_rate|(.*_)?drop_rate"),
        lambda x: x < 1,
        "should be below 1: everything would be dropped",
    ),
)
_OF_SAMPLERS = (
    _Limit(re.compile("num"), lambda x: is_whole(x) and x >= 1, "samples nothing: it should be 1 or more"),
    _Limit(re.compile("pos_fraction"), lambda x: 0 < x <= 1, "should be the part of objects, above 0 and up to 1"),
)

_NMS = ("nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri")
_OF_BATCHED_NMS = ("boxes", "scores", "dets", "idxs", "class_agnostic", "split_thr", "max_num")
_SOFT = ("naive", "linear", "gaussian")


def limit_findings(config: Config) -> Iterator[Finding]:
    """Limits of detectors wherever they are in the model, and how mmseg's models go over an image."""
    for section in ("model", "tta_model"):
        for key, part in dicts_in(section, config.get(section)):
            yield from _weight_findings(key, part)
            yield from _assigner_findings(key, part)
            yield from _beyond(key, part, _OF_LAYERS)
            if str(part.get("type")).endswith("AnchorGenerator"):
                yield from _anchor_findings(key, part)
            if "train_cfg" in key or "test_cfg" in key or "tta_cfg" in key:
                yield from _beyond(key, part, _LIMITS)
                if str(part.get("type")).endswith("Sampler"):
                    yield from _beyond(key, part, _OF_SAMPLERS)
                if key.rpartition(".")[2] == "nms":
                    yield from _nms_findings(key, part)
    yield from _score_findings(config)
    kind = class_of(config.model, MODELS)
    if hasattr(kind, "slide_inference"):
        flips = hasattr(kind, "slide_flip_inference")
        yield from _window_findings("model.test_cfg", config.model.get("test_cfg") or {}, flips)


_HIGH = 0.3  # scores of detections that are kept; of OpenMMLab's detectors that are scored by mAP, 0.05 and less
_BY_RANK = {"CocoMetric", "VOCMetric", "LVISMetric"}


def _score_findings(config: Config) -> Iterator[Finding]:
    """Scores that leave out detections of which mean average precision counts all, the least certain too."""
    metrics = [type_name(metric) for _, metric in evaluators_of(config, ("val", "test"))]
    if not metrics or not _BY_RANK.issuperset(metrics):
        return
    for key, part in dicts_in("model", config.model):
        score = part.get("score_thr")
        if "test_cfg" in key and isinstance(score, int | float) and _HIGH < score < 1:
            told = "detections below are left out before they are scored, and mean average precision counts them, too"
            yield Finding(at(f"{key}.score_thr", score), f"{told}. Usual is 0.05 or less", fatal=False)


def _weight_findings(key: str, part: dict) -> Iterator[Finding]:
    """Weights of losses below 0, by which a model learns what is wrong, and those of 0, by which it does not learn."""
    weight, by_class = part.get("loss_weight"), part.get("class_weight")
    if isinstance(weight, int | float) and not weight > 0:
        told = "nothing is learnt of this loss" if weight == 0 else "should be 0 or more: the model would learn to err"
        yield Finding(at(f"{key}.loss_weight", weight), told, fatal=weight != 0)
    numbers = by_class if isinstance(by_class, list | tuple) else []
    if numbers and all(isinstance(x, int | float) for x in numbers) and not (min(numbers) >= 0 and max(numbers) > 0):
        yield Finding(at(f"{key}.class_weight", by_class), "should be numbers from 0 on, and above 0 for some class")


def _assigner_findings(key: str, part: dict) -> Iterator[Finding]:
    """Overlaps that reach from background into objects: they seem to have changed places."""
    positive, negative = part.get("pos_iou_thr"), part.get("neg_iou_thr")
    highest = max(negative, default=None) if isinstance(negative, list | tuple) else negative
    if isinstance(positive, int | float) and isinstance(highest, int | float) and highest > positive:
        told = f"is above pos_iou_thr={positive}: below the one a box is background, from the other on an object. "
        yield Finding(at(f"{key}.neg_iou_thr", negative), f"{told}Are they reversed?", fatal=False)


def _anchor_findings(key: str, part: dict) -> Iterator[Finding]:
    """Boxes of no size, which no object overlaps: a detector would learn that there is none."""
    for name in ("strides", "ratios", "scales", "base_sizes", "octave_base_scale", "scales_per_octave"):
        sizes = part.get(name)
        numbers = sizes if isinstance(sizes, list | tuple) else [] if sizes is None else [sizes]
        empty = isinstance(sizes, list | tuple) and not sizes
        if empty or any(isinstance(x, int | float) and not x > 0 for x in numbers):
            yield Finding(at(f"{key}.{name}", sizes), "should be numbers above 0: no object would overlap an anchor")


def _beyond(key: str, part: dict, limits: tuple[_Limit, ...]) -> Iterator[Finding]:
    for name, value in part.items():
        for limit in limits:
            if limit.names.fullmatch(str(name)) and not _fits(value, limit):
                yield Finding(at(f"{key}.{name}", value), limit.wanted)


def _fits(value: Any, limit: _Limit) -> bool:
    """Lists and None mean what their reader makes of them; text is no number."""
    if isinstance(value, str | bool):
        return False
    return not isinstance(value, int | float) or (math.isfinite(value) and limit.fits(value))


def _nms_findings(key: str, settings: dict) -> Iterator[Finding]:
    """What mmcv looks at when a model has found something, which it does late."""
    kind = settings.get("type", "nms")
    if getattr(kind, "__name__", kind) in mmcv_ops.SUPPRESSION_WITHOUT and mmcv_ops.needed():
        told = (
            f"needs mmcv's compiled ops, without which it is installed. To get full mmcv: {mmcv_ops.how_to_get_them()}"
        )
        yield Finding(at(f"{key}.type", kind), told)
        return
    function = getattr(mmcv.ops, kind, None) if kind in _NMS else kind
    if not callable(function):
        yield Finding(at(f"{key}.type", kind), f"should be one of {', '.join(_NMS)}")
        return
    yield from argument_findings(key, settings, function, _OF_BATCHED_NMS)
    method = settings.get("method", "linear")
    if kind == "soft_nms" and method not in _SOFT:
        yield Finding(at(f"{key}.method", method), f"should be one of {', '.join(_SOFT)}")


def _window_findings(key: str, settings: dict, flips: bool) -> Iterator[Finding]:
    """What mmseg looks at in the first evaluation; only some models predict flipped windows, too."""
    mode = settings.get("mode")
    if mode == "whole":
        return
    if mode not in (("slide", "slide_flip") if flips else ("slide",)):
        also = " (or 'slide_flip')" if flips else ""
        yield Finding(at(f"{key}.mode", mode), f"should be 'whole', or 'slide'{also} with crop_size and stride")
        return
    crop_size, stride = settings.get("crop_size"), settings.get("stride")
    for name, pair in (("crop_size", crop_size), ("stride", stride)):
        if not _is_pair(pair):
            yield Finding(at(f"{key}.{name}", pair), "should be a height and a width in pixels, 1 or more")
    if _is_pair(crop_size) and _is_pair(stride) and any(step > side for side, step in zip(crop_size, stride)):
        told = f"is beyond crop_size={tuple(crop_size)}: the windows would leave out pixels between them"
        yield Finding(at(f"{key}.stride", tuple(stride)), told)


def _is_pair(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_whole(x) and x >= 1 for x in value)
