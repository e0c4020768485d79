"""Models of any size without their memory: on the meta device, built and run for their shapes alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What fills initial weights. On meta PyTorch goes through them in Python, longer than it takes to build the model.
_FILLS = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_),
    *(Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_),
}


class EmptyOnMeta(TorchFunctionMode):
    """Makes on meta what ``torch.empty`` makes, as layers make their weights, and computes the rest as ever.

    Under ``torch.device("meta")`` the numbers that models compute with tensors, as rates of drop path, had no values.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _FILLS and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs | dict(device="meta") if function is torch.empty else kwargs))


class Observed(TorchDispatchMode):
    """Runs every operator as it is; while it is on, our operators give what their fake form says."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def build_on_meta(model: dict) -> BaseModel:
    """The model of a config's ``model``, which stays as it is, at its own size, in the default scope."""
    with EmptyOnMeta():
        return MODELS.build(copy.deepcopy(model)).to("meta")


def has_queries(model: BaseModel) -> bool:
    """Whether it is of the family of DETR or of Mask2Former, which choose by values, which there are none of."""
    return any(hasattr(part, "num_queries") for part in (model, *model.children()))


def run_parts(model: BaseModel, images: Tensor) -> Iterator[Any]:
    """Outputs of all dense parts, and of the heads of a second stage; of models with queries the maps alone.

    Proposals are chosen by values: heads of a second stage get features of as many channels as the maps have.

    Args:
        model: A model on meta.
        images: ``(B, C, H, W)``, on meta.

    Raises:
        RuntimeError: Shapes do not fit.
    """
    maps = model.extract_feat(images)
    if has_queries(model):
        yield maps
        return
    for name in ("head", "decode_head", "auxiliary_head", "rpn_head", "bbox_head"):
        for head in _listed(getattr(model, name, None)):
            yield head(maps)
    if hasattr(model, "roi_head") and not model.roi_head.with_shared_head:  # which would make other channels
        stages: Any = model.roi_head
        for name in ("bbox", "mask"):
            for extractor, head in zip(
                _listed(getattr(stages, f"{name}_roi_extractor", None)),
                _listed(getattr(stages, f"{name}_head", None)),
                strict=True,
            ):
                channels = {m.shape[1] for m in maps[: extractor.num_inputs]}
                if channels != {extractor.out_channels}:
                    raise RuntimeError(
                        f"{name}_roi_extractor.out_channels={extractor.out_channels}, expected input to have "
                        f"{', '.join(map(str, sorted(channels)))} channels, as the maps have"
                    )
                size = extractor.roi_layers[0].output_size
                yield head(maps[0].new_empty(5, extractor.out_channels, *size))
        yield maps  # they reach the second stage through the extractors


def _listed(modules: nn.Module | None) -> list[Any]:
    if modules is None:
        return []
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]
