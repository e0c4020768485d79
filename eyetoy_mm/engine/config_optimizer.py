"""The optimizer of a config, built on the config's model: its arguments, what is clipped, and rules for parameters."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_places import (
    argument_findings,
    at,
    class_of,
    explain,
    nearest,
    unknown_type,
)
from eyetoy_mm.layers.checks import is_whole

_CLIPS: dict[str, Callable[..., Any]] = {
    "norm": torch.nn.utils.clip_grad_norm_,
    "value": torch.nn.utils.clip_grad_value_,
}
_BASE = re.compile(r"base_(lr|wd) should not be None")  # mmengine's words
_MULTIPLIERS = ("lr_mult", "decay_mult")  # of custom_keys; the rest goes into the optimizer's group as it is


def optimizer_findings(model: BaseModel, optim_wrapper: dict) -> Iterator[Finding]:
    """What is wrong with a config's ``optim_wrapper``.

    Args:
        model: The config's, on meta.
        optim_wrapper: The section.
    """
    if class_of(dict(type="OptimWrapper") | optim_wrapper, OPTIM_WRAPPERS) is None:
        yield unknown_type("optim_wrapper", optim_wrapper, OPTIM_WRAPPERS)
        return
    given = optim_wrapper.get("paramwise_cfg")
    settings = _Read(given if isinstance(given, dict) else {})
    wrong = [
        *_optimizer_arguments(optim_wrapper.get("optimizer")),
        *_clip_findings(optim_wrapper.get("clip_grad")),
        *_no_rules(settings.get("custom_keys")),
        *_counts(optim_wrapper.get("accumulative_counts", 1)),
    ]
    if wrong:
        yield from wrong
        return
    try:
        built = build_optim_wrapper(
            model, optim_wrapper if not settings else dict(optim_wrapper, paramwise_cfg=settings)
        )
    except (OSError, ImportError, NotImplementedError):
        return  # of what shards or offloads, and wants real weights
    except Exception as error:  # whatever an optimizer raises
        if found := _BASE.search(str(error)):
            setting = {"lr": "lr", "wd": "weight_decay"}[found[1]]
            told = f"is missing: paramwise_cfg multiplies it, and takes it from the config: set optimizer.{setting}"
            yield Finding(f"optim_wrapper.optimizer.{setting}", told)
            return
        yield explain(error, "optim_wrapper", optim_wrapper, OPTIM_WRAPPERS).finding
        return
    yield from settings.unread("optim_wrapper.paramwise_cfg")
    groups = getattr(built, "param_groups", ())
    for setting in ("lr", "weight_decay"):
        below = [
            group[setting] for group in groups if isinstance(group.get(setting), int | float) and group[setting] < 0
        ]
        if below:
            told = f"of {len(below)} groups of parameters is below 0, such as {min(below):g}: look at paramwise_cfg"
            yield Finding(f"optim_wrapper.optimizer.{setting}", told)
    betas = groups[0].get("betas") if groups else None
    if isinstance(betas, list | tuple) and len(betas) == 2 and betas[0] > betas[1]:
        told = "the first is of gradients, the second of their squares, which fade more slowly: are they reversed?"
        yield Finding(at("optim_wrapper.optimizer.betas", betas), told, fatal=False)
    if groups and all(group.get("lr") == 0 for group in groups):
        yield Finding("optim_wrapper.optimizer.lr=0", "nothing would be learnt: the rate of every parameter is 0")
    constructor: Any = class_of(dict(type=optim_wrapper.get("constructor")), OPTIM_WRAPPER_CONSTRUCTORS)
    constructor = constructor or DefaultOptimWrapperConstructor
    if inspect.isclass(constructor) and issubclass(constructor, DefaultOptimWrapperConstructor):
        defaults = getattr(getattr(built, "optimizer", None), "defaults", {})
        yield from _custom_findings(model, settings.get("custom_keys") or {}, defaults)


def _optimizer_arguments(optimizer: Any) -> Iterator[Finding]:
    if not isinstance(optimizer, dict):
        return
    kind = class_of(optimizer, OPTIMIZERS)
    if kind is None:
        yield unknown_type("optim_wrapper.optimizer", optimizer, OPTIMIZERS)
        return
    yield from argument_findings("optim_wrapper.optimizer", optimizer, kind, ("params",))
    for name, value in optimizer.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield Finding(at(f"optim_wrapper.optimizer.{name}", value), "should be a finite number")
    momentum, eps = optimizer.get("momentum"), optimizer.get("eps")
    if isinstance(momentum, int | float) and momentum >= 1:
        told = "should be below 1: nothing of earlier gradients would fade"
        yield Finding(at("optim_wrapper.optimizer.momentum", momentum), told)
    if isinstance(eps, int | float) and eps == 0:
        told = "should be above 0: a parameter whose gradient is 0 would become NaN"
        yield Finding(at("optim_wrapper.optimizer.eps", eps), told)


def _clip_findings(clip_grad: Any) -> Iterator[Finding]:
    """Arguments of the function that clips, which is called in the first step; a negative limit turns gradients."""
    key = "optim_wrapper.clip_grad"
    function = _CLIPS.get(clip_grad.get("type", "norm")) if isinstance(clip_grad, dict) else None
    if function is None:
        return  # told by the optimizer's wrapper
    yield from argument_findings(key, clip_grad, function, ("parameters",))
    for name in ("max_norm", "clip_value"):
        limit = clip_grad.get(name, 1)
        if not isinstance(limit, str) and not (isinstance(limit, int | float) and limit > 0):
            yield Finding(at(f"{key}.{name}", limit), "should be a number above 0")


def _counts(counts: Any) -> Iterator[Finding]:
    if not is_whole(counts) or counts < 1:
        told = "should be a whole number of steps, 1 or more"
        yield Finding(at("optim_wrapper.accumulative_counts", counts), told)


def _no_rules(custom_keys: Any) -> Iterator[Finding]:
    for part, rule in custom_keys.items() if isinstance(custom_keys, dict) else ():
        if not isinstance(rule, dict):
            place = at(f"optim_wrapper.paramwise_cfg.custom_keys.{part}", rule)
            yield Finding(place, "should be a dict, such as dict(lr_mult=0.1)")


class _Read(dict):
    """Settings that know which of them were looked up, also of a copy."""

    def __init__(self, settings: dict, asked: set[str] | None = None) -> None:
        super().__init__(settings)
        self.asked: set[str] = set() if asked is None else asked

    def __deepcopy__(self, memo: dict) -> _Read:
        return _Read({key: copy.deepcopy(value, memo) for key, value in self.items()}, self.asked)

    def copy(self) -> _Read:
        return _Read(self, self.asked)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.asked.add(key)
        return super().pop(key, *default)

    def unread(self, where: str) -> Iterator[Finding]:
        """Settings that were not; what is near to one that was asked for is misspelt, the rest is of another class."""
        for key in self:
            if key not in self.asked:
                near = nearest(key, self.asked, cutoff=0.8)
                told = f"; did you mean {near}?" if near else ""
                yield Finding(at(f"{where}.{key}", dict.get(self, key)), f"nothing reads it{told}", fatal=bool(near))


def _custom_findings(model: BaseModel, custom_keys: dict, defaults: dict[str, Any]) -> Iterator[Finding]:
    """Rules for parameters of some names: settings that no optimizer has, and learning rates of no parameter."""
    names = [f".{name}" for name, _ in model.named_parameters()]
    known = [*_MULTIPLIERS, *defaults]
    parts = {part for name in names for part in name.split(".") if part}
    for part, rule in custom_keys.items():
        where = f"optim_wrapper.paramwise_cfg.custom_keys.{part}"
        for setting in rule:  # other names are for optimizers that look into their groups, as LARS does
            near = nearest(setting, known)
            if setting not in known and near:
                message = f"neither a multiplier nor an optimizer's setting; did you mean {near}?"
                yield Finding(at(f"{where}.{setting}", rule[setting]), message)
        if rule.get("lr_mult", 1) != 1 and not any(part in name for name in names):
            yield Finding(where, "no parameter has this in its name: its learning rate is of nothing", fatal=False)
        elif not any(part in name for name in names) and (near := nearest(part, parts, 0.8)):
            yield Finding(where, f"no parameter has this in its name; did you mean {near}?", fatal=False)
