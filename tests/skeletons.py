"""Models of any size without their memory: on the meta device, to be counted, run for their shapes, and compared."""

from collections.abc import Iterator
from numbers import Number
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from eyetoy_mm.engine.skeletons import Observed, build_on_meta, has_queries, run_parts

_ONE_MODULE = vars(nn.Module()).keys()


def skeleton(config: Config) -> BaseModel:
    """The model of a config, at its own size, on meta."""
    init_default_scope(config.default_scope)
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))  # as the Runner does
    return build_on_meta(config.model)


def parameters_without_gradient(model: BaseModel, size: tuple[int, int]) -> list[str]:
    """Run a skeleton, and back, on a batch of images of a size: fails where shapes do not fit.

    Proposals are chosen by values, which there are none of: heads of a second stage get features of as many channels.
    Transformers with queries choose throughout: of their models, what makes the maps runs, and a step shows the rest.

    Returns:
        Names of the trainable parameters that get no gradient.
    """
    images = torch.empty(2, 3, *size, device="meta")
    with Observed():
        outputs = list(_tensors(list(run_parts(model.train(), images))))
        torch.autograd.backward([x.sum() for x in outputs if x.requires_grad])
    ran = ("backbone.", "neck.") if has_queries(model) else ("",)
    names = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    return [name for name in names if name.startswith(ran)]


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from _tensors(output)


def structure(module: nn.Module) -> tuple:
    """What a module is, whatever its numbers: two are equal if they differ in sizes, counts, rates and the like alone.

    Types, strings, switches and functions count, of the module and of all below it; of modules in a row, the different
    ones count.
    """
    children = {name: structure(child) for name, child in module.named_children()}
    return *_itself(module), *(dict.fromkeys(children.values()) if _is_row(children) else children.items())


def parts(model: nn.Module) -> set[tuple]:
    """The structures of the parts of a model (its backbone, its head, ...), each with its name; its own has none."""
    return {("", _itself(model)), *((name, structure(child)) for name, child in model.named_children())}


def _is_row(children: dict) -> bool:
    return all(name.isdigit() for name in children)


def _itself(module: nn.Module) -> tuple:
    settings = {name: _kind(value) for name, value in vars(module).items() if name not in _ONE_MODULE}
    tensors = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
    shapes = [(name, x.dim(), x.requires_grad) for named in tensors for name, x in named]
    return type(module), tuple(sorted(settings.items())), tuple(shapes)


def _kind(value: Any) -> Any:
    """A value without its numbers."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Number):
        return Number
    if isinstance(value, dict):
        return tuple((key, _kind(item)) for key, item in value.items())
    if isinstance(value, list | tuple | set | range):
        return tuple(dict.fromkeys(map(_kind, value)))
    return value if isinstance(value, type) else getattr(value, "__qualname__", type(value))
