"""A place in a config, the dict of a class: what the class takes of it, and what an error of building it says of it."""

from __future__ import annotations

import copy
import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, Registry, build_from_cfg
from torch import nn

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.errors import first_few

_NO_ARGUMENTS = {"type", "_scope_"}
_UNEXPECTED = re.compile(r"unexpected keyword argument '(?P<name>\w+)'")
_MISSING = re.compile(r"missing \d+ required (positional|keyword-only) arguments?: (?P<names>.+)")
_NOT_REGISTERED = re.compile(r"'?(?P<name>[\w.]+) is not in the [^.]+ registry|Cannot find [\w.]+ in registry")
_NO_TYPE = 'must contain the key "type"'
_SWITCHES = {"yes", "no", "on", "off", "y", "n", "true", "false"}


def nearest(name: Any, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most like another, whatever its case; None where none is like it.

    Of those that are about as much so, one that goes on from it is: of ``CrossEntropy``, ``CrossEntropyLoss``.
    """
    by_lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=cutoff)
    found.sort(key=lambda one: not one.startswith(str(name).lower()))
    return by_lower[found[0]] if found else None


def at(key: str, value: Any) -> str:
    """A key with its value, shortened, as findings name it."""
    text = repr(value)
    return f"{key}={text if len(text) < 60 else f'{text[:57]}...'}"


def did_you_mean(name: Any, names: Iterable[str], cutoff: float = 0.6) -> str:
    """``"; did you mean x?"``, or where no name is near, which there are."""
    names = list(names)
    near = nearest(name, names, cutoff)
    return f"; did you mean {near}?" if near else (f"; it has {first_few(names, limit=16)}" if names else "")


# --- Classes ----------------------------------------------------------------------------------------------------------


def class_of(part: Any, registry: Registry) -> Callable[..., Any] | None:
    """What the ``type`` of a dict names in a registry of mmengine and its children; None where it names nothing."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    with registry.switch_scope_and_registry(part.get("_scope_")) as scoped:
        try:
            return scoped.get(kind)
        except Exception:  # what importing a module of that name raises
            return None


def unknown_type(key: str, part: dict, registry: Registry) -> Finding:
    """The finding of a dict whose type names nothing."""
    kind = part.get("type")
    if kind is None:
        return Finding(key, f"needs a type, the name of a class; it has {first_few(part, 8) or 'nothing'}")
    if not isinstance(kind, str):
        return Finding(at(f"{key}.type", kind), "should be the name of a class, or a class")
    package, _, name = kind.partition(".")
    near = _registered_name(kind, registry)
    is_scope = nearest(package, ("mmengine", "eyetoy_mm", *registry.children), 0.7) is not None  # or was to be one
    if package and name and not is_scope and find_spec(package) is None:
        remedy = f"There is no package {package} here: install it, or put its folder into PYTHONPATH"
    elif near is None:
        remedy = "Check the name, or import the module that registers it: custom_imports=dict(imports=[...])"
    else:
        remedy = f"Did you mean {near}?"
    return Finding(at(f"{key}.type", kind), f"no {registry.name} of that name is registered. {remedy}")


def _registered_name(kind: str, registry: Registry) -> str | None:
    """The registered name that is most like another: of the scope itself, else of another, with the scope's name."""
    with registry.switch_scope_and_registry(None) as scoped:
        own = [*scoped.module_dict, *registry.module_dict]
    others = {f"{scope}.{name}": name for scope, child in registry.children.items() for name in child.module_dict}
    bare = kind.rpartition(".")[2]
    elsewhere = [full for full, name in others.items() if name == bare and full != kind]
    if bare != kind and bare in own:
        return bare
    return elsewhere[0] if elsewhere else nearest(kind, own, 0.7) or nearest(kind, others, 0.7)


def parameters_of(kind: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """What a class or function takes by name, also what it hands on to its bases, and whether it takes any other."""
    makers = [vars(cls)["__init__"] for cls in getattr(kind, "__mro__", ()) if "__init__" in vars(cls)] or [kind]
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        try:
            signature = inspect.signature(maker).parameters
        except (TypeError, ValueError):  # of some built-in classes
            return found, True
        named = {name: p for name, p in signature.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        found = {name: p for name, p in named.items() if name != "self"} | found
        if maker is object.__init__ or not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            return found, maker is object.__init__
    return found, True


def argument_findings(
    key: str, part: dict, kind: Callable[..., Any], others: Collection[str] = (), types_alone: bool = False
) -> Iterator[Finding]:
    """Arguments that a class does not take, lacks, or takes as numbers or switches where the config has text.

    Args:
        key: Where the dict is in the config.
        part: The dict.
        kind: The class or function.
        others: Arguments that whoever builds it adds, or takes away.
        types_alone: Leave out those that it does not take or lacks, which building it shows.
    """
    name = getattr(kind, "__name__", str(kind))
    parameters, takes_any = parameters_of(kind)
    for argument, value in part.items():
        if argument in _NO_ARGUMENTS or argument in others:
            continue
        if argument in parameters:
            wanted = _wanted_type(value, parameters[argument])
            if wanted:
                yield Finding(at(f"{key}.{argument}", value), f"should be {wanted}, as {name} takes it")
        elif not takes_any and not types_alone:
            known = [one for one in parameters if one not in others]
            yield Finding(at(f"{key}.{argument}", value), f"{name} takes no {argument}{did_you_mean(argument, known)}")
    own = parameters_of(getattr(kind, "__init__", kind) if inspect.isclass(kind) else kind)[0]
    missing = [one for one, p in own.items() if p.default is p.empty and one not in part and one not in others]
    if missing and not types_alone:
        yield Finding(key, f"{name} needs {', '.join(missing)}")


def typed_findings(key: str, node: Any, registry: Registry) -> Iterator[Finding]:
    """Text where the classes below take numbers or switches, which some do not look at before they compute."""
    for where, part in dicts_in(key, node):
        kind = class_of(part, registry) if "type" in part else None
        if kind is not None:
            yield from argument_findings(where, part, kind, types_alone=True)


def built_findings(key: str, part: dict, registry: Registry) -> Iterator[Finding]:
    """What building a part says of it."""
    if class_of(part, registry) is None:
        yield unknown_type(key, part, registry)
        return
    try:
        registry.build(copy.deepcopy(part))
    except (OSError, ImportError):
        return  # files and packages, of which others tell
    except Exception as error:  # whatever a transform raises
        yield explain(error, key, part, registry).finding
    else:
        yield from typed_findings(key, part, registry)


def _wanted_type(value: Any, parameter: inspect.Parameter) -> str | None:
    """What a parameter takes where the value is of another kind: text for a number or a switch."""
    annotation = parameter.annotation if isinstance(parameter.annotation, str) else repr(parameter.annotation)
    if not isinstance(value, str) or "str" in annotation or "Any" in annotation:
        return None
    if isinstance(parameter.default, bool) or parameter.annotation in (bool, "bool"):
        return "True or False" if value.lower() in _SWITCHES else None  # others' annotations leave out words they take
    is_number = isinstance(parameter.default, int | float) or parameter.annotation in (int, float, "int", "float")
    return "a number" if is_number else None


# --- Errors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """What an error of building a dict of a config is about.

    Args:
        finding: The message.
        key: The key that is wrong, where one is; None where it is not known.
        name: For a type, one that may be meant.
    """

    finding: Finding
    key: str | None = None
    name: str | None = None


def explain(error: BaseException, key: str, built: dict, registry: Registry) -> Explained:
    """Say what an error of building a dict is about.

    Args:
        error: What ``registry.build(built)`` raised.
        key: Where the dict is in the config.
        built: The dict.
        registry: mmengine's registry of its kind.
    """
    place, part, registry = _place(error, key, built, registry)
    kind = class_of(part, registry)
    name = getattr(kind, "__name__", None) or part.get("type")
    text = " ".join(str(error).split())
    if found := _UNEXPECTED.search(text):
        return _unexpected(found["name"], place, part, kind, name)
    if found := _MISSING.search(text):
        return Explained(Finding(place, f"{name} needs {found['names'].replace(chr(39), '')}"))
    if _NOT_REGISTERED.search(text):
        for where, inner in dicts_in(place, part):
            if "type" in inner and all(class_of(inner, one) is None for one in (registry, MODELS, TASK_UTILS)):
                near = _registered_name(str(inner["type"]), registry)
                return Explained(unknown_type(where, inner, registry), f"{where}.type", near)
    if _NO_TYPE in text:
        return Explained(unknown_type(place, part, registry))
    for finding in argument_findings(place, part, kind, types_alone=True) if kind is not None else ():
        return Explained(finding)
    if isinstance(error, AssertionError) and not text:
        text = f"it fails {traceback.extract_tb(error.__traceback__)[-1].line}"
    text = text if isinstance(error, ValueError | AssertionError) else f"{type(error).__name__}: {text}"
    return Explained(Finding(place, f"{name} cannot be built with {_arguments(part)}: {text}"))


def _unexpected(argument: str, place: str, part: dict, kind: Callable[..., Any] | None, name: Any) -> Explained:
    """An argument that a class does not take: of the dict itself, or of one below that is built apart."""
    for where, owner in dicts_in(place, part):
        if argument in owner:
            known = parameters_of(kind)[0] if owner is part and kind is not None else ()
            key = f"{where}.{argument}"
            owner_name = name if owner is part else owner.get("type", name)
            message = f"{owner_name} takes no {argument}{did_you_mean(argument, known)}"
            return Explained(Finding(at(key, owner[argument]), message), key)
    return Explained(Finding(place, f"{name} is given {argument} by what it is a part of, and takes none"))


def _arguments(part: dict) -> str:
    """The plain arguments of a dict, for a message."""
    plain = [f"{k}={v!r}" for k, v in part.items() if k not in _NO_ARGUMENTS and not isinstance(v, dict)]
    return first_few((text if len(text) < 60 else f"{text[:57]}..." for text in plain), 8) or "no arguments"


def _place(error: BaseException, key: str, built: dict, registry: Registry) -> tuple[str, dict, Registry]:
    """The innermost dict of the config that was being built, and the registry: mmengine's function has them at hand."""
    whole = key, built
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is not build_from_cfg.__code__:
            continue
        wanted = frame.f_locals.get("cfg")
        if isinstance(wanted, dict):
            key, built = _most_like(wanted, key, built) or _most_like(wanted, *whole) or (key, wanted)
            registry = frame.f_locals["registry"]
    while registry.parent is not None:
        registry = registry.parent
    return key, built, registry


def _most_like(wanted: dict, key: str, built: dict) -> tuple[str, dict] | None:
    """Where a dict is in another: itself, or that of its type it was copied from, and changed, before it was built."""
    alike = [(where, part) for where, part in dicts_in(key, built) if part.get("type") == wanted.get("type")]
    for where, part in alike:
        if part is wanted:
            return where, part
    return max(alike, key=lambda one: sum(wanted.get(k) == v for k, v in one[1].items()), default=None)


def was_built(error: BaseException) -> bool:
    """Whether an error came from building a dict of a config."""
    return any(frame.f_code is build_from_cfg.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def failing_module(model: nn.Module, error: BaseException) -> str:
    """The name of the innermost module of a model that an error came through; empty for the model itself, or none."""
    names = {id(module): name for name, module in model.named_modules()}
    frames = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    found = [names[id(module)] for module in frames if id(module) in names]
    return found[-1] if found else ""


def dicts_in(key: str, node: Any) -> Iterator[tuple[str, dict]]:
    """Every dict of a config from a place on, with its key."""
    if isinstance(node, dict):
        yield key, node
        for name, value in node.items():
            yield from dicts_in(f"{key}.{name}" if key else str(name), value)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from dicts_in(f"{key}.{index}", value)
