"""The blocks of a model: what is gathered at once where it is sharded, and computed again where memory is short."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from torch import nn

from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.errors import UserError


def block_names(model: nn.Module, wanted: Collection[str] | None = None) -> list[str]:
    """Names of the blocks of a model, none inside another.

    Args:
        model: The model itself, not wrapped.
        wanted: Names of classes, or of modules. None takes those of the backbone: what it says of its depth where it is
            one of ours; otherwise the modules that repeat, which are the elements of a row (``ModuleList`` or
            ``Sequential``) with two neighbours of one class and of the same shapes, the outermost of such.

    Raises:
        UserError: Nothing has a name that is wanted.
    """
    if wanted is not None:
        return _wanted_names(model, wanted)
    backbone = getattr(model, "backbone", model)
    prefix = "backbone." if backbone is not model else ""
    if isinstance(backbone, StagedBackbone):
        names = [name for names in backbone.depth_modules()[1:] for name in names]
        built = {name for name, _ in backbone.named_modules()}
        return [f"{prefix}{name}" for name in names if name in built]
    return [f"{prefix}{name}" for name in _repeated(backbone)]


def _wanted_names(model: nn.Module, wanted: Collection[str]) -> list[str]:
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        known_as = {name, type(module).__name__} & set(wanted)
        if name and known_as and not any(name.startswith(f"{other}.") for other in found):
            found[name] = known_as.pop()
    if missing := sorted(set(wanted) - set(found.values())):
        kinds = sorted({type(module).__name__ for module in model.modules() if any(module.children())})
        raise UserError(
            f"blocks={list(wanted)}: no module of the model, and no class of one, is called {', '.join(missing)}. Its "
            f"classes are {', '.join(kinds)}"
        )
    return list(found)


def _repeated(module: nn.Module, name: str = "") -> Iterator[str]:
    kinds = _kinds_in_row(module) if isinstance(module, nn.ModuleList | nn.Sequential) else ()
    for child, inner in module.named_children():
        path = f"{name}.{child}" if name else child
        if type(inner) in kinds:
            yield path
        elif not kinds:
            yield from _repeated(inner, path)


def _kinds_in_row(row: nn.Module) -> set[type[nn.Module]]:
    """Classes, made of several modules, of which two neighbours are alike."""
    pairs = itertools.pairwise(row.children())
    return {type(a) for a, b in pairs if type(a) is type(b) and any(a.children()) and _shapes(a) == _shapes(b) != []}


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(x.shape)) for name, x in module.named_parameters()]
