"""Models of any size without their memory: on the meta device, to be counted, run for their shapes, and compared."""

import copy
from collections.abc import Iterator
from numbers import Number
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ONE_MODULE = vars(nn.Module()).keys()


class _EmptyOnMeta(TorchFunctionMode):
    """Makes on meta what ``torch.empty`` makes, as layers make their weights, and computes the rest as ever.

    Under ``torch.device("meta")`` the numbers that models compute with tensors, as rates of drop path, had no values.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return function(*args, **(kwargs | dict(device="meta") if function is torch.empty else kwargs))


class _Observed(TorchDispatchMode):
    """Runs every operator as it is; while it is on, our operators give what their fake form says."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def skeleton(config: Config) -> BaseModel:
    """The model of a config, at its own size, on meta."""
    init_default_scope(config.default_scope)
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))  # as the Runner does
    with _EmptyOnMeta():
        return MODELS.build(copy.deepcopy(config.model)).to("meta")


def parameters_without_gradient(model: BaseModel, size: tuple[int, int]) -> list[str]:
    """Run a skeleton, and back, on a batch of images of a size: fails where shapes do not fit.

    Proposals are chosen by values, which there are none of: heads of a second stage get features of as many channels.
    Transformers with queries choose throughout: of their models, what makes the maps runs, and a step shows the rest.

    Returns:
        Names of the trainable parameters that get no gradient.
    """
    images = torch.empty(2, 3, *size, device="meta")
    with _Observed():
        outputs = list(_tensors(list(_run(model.train(), images))))
        torch.autograd.backward([x.sum() for x in outputs if x.requires_grad])
    ran = ("backbone.", "neck.") if _has_queries(model) else ("",)
    names = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    return [name for name in names if name.startswith(ran)]


def _has_queries(model: BaseModel) -> bool:
    """Whether it is of the family of DETR or of Mask2Former."""
    return any(hasattr(part, "num_queries") for part in (model, *model.children()))


def _run(model: BaseModel, images: Tensor) -> Iterator[Any]:
    """Outputs of all dense parts, and of the heads of a second stage."""
    maps = model.extract_feat(images)
    if _has_queries(model):
        yield maps
        return
    for name in ("head", "decode_head", "auxiliary_head", "rpn_head", "bbox_head"):
        if getattr(model, name, None) is not None:
            yield getattr(model, name)(maps)
    if hasattr(model, "roi_head"):
        stages = model.roi_head
        for extractors, heads in (
            (stages.bbox_roi_extractor, stages.bbox_head),
            (stages.mask_roi_extractor, stages.mask_head),
        ):
            for extractor, head in zip(_listed(extractors), _listed(heads), strict=True):
                assert {m.shape[1] for m in maps[: extractor.num_inputs]} == {extractor.out_channels}
                size = extractor.roi_layers[0].output_size
                yield head(maps[0].new_empty(5, extractor.out_channels, *size))
        yield maps  # they reach the second stage through the extractors


def _listed(modules: nn.Module) -> list[nn.Module]:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


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
