"""Optimizer wrappers and their constructors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from eyetoy_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 on any device, CPUs among them, which mmengine's ``AmpOptimWrapper`` refuses.

    The forward pass runs under autocast; weights, gradients and the optimizer's state stay float32. bfloat16 has the
    range of float32, so that there is no scale of the loss and ``clip_grad`` means what it says. It pays on CPUs with
    AVX-512 BF16 or AMX.

    Takes the arguments of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast beside what ``OptimWrapper`` does: synchronise gradients in the last step of an accumulation."""
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall with the distance from the head, for any model whose backbone tells its depths.

    mmdet's and mmseg's constructors know ConvNeXt and BEiT alone; mmpretrain's takes classifiers alone. This one reads
    ``backbone.get_layer_depth``, which our backbones and mmpretrain's have, and keeps every rule of mmengine's
    ``paramwise_cfg`` (``custom_keys``, ``norm_decay_mult``, ...). A parameter of depth ``d`` out of ``n`` has the
    learning rate times ``layer_decay_rate ** (n - 1 - d)`` (layerwise learning rate decay of ELECTRA, Clark et al.,
    2020); what is not in the backbone keeps its own.

    Example::

        optim_wrapper = dict(
            constructor='eyetoy_mm.LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.9)
        )

    Raises:
        ValueError: ``layer_decay_rate`` is missing or not in (0, 1], or the model's backbone does not tell its depths.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = "", **kwargs) -> None:
        """Add a group for each parameter below ``module``; the model itself comes with an empty prefix."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        rate = self.paramwise_cfg.get("layer_decay_rate")
        if rate is None or not 0 < rate <= 1:
            raise ValueError(f"paramwise_cfg needs a layer_decay_rate in (0, 1], got {rate}")
        backbone = getattr(module, "backbone", None)
        if backbone is None or not hasattr(backbone, "get_layer_depth"):
            raise ValueError(
                f"layer-wise decay needs a backbone with get_layer_depth; {type(backbone).__name__} has none"
            )
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            depth, num_depths = backbone.get_layer_depth(names[id(group["params"][0])], prefix="backbone.")
            group["lr"] = group.get("lr", self.base_lr) * rate ** (num_depths - 1 - depth)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLROptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """A learning rate of its own for the backbone, beside every rule of mmengine's ``paramwise_cfg``.

    Of mmengine's ``custom_keys`` the longest that a parameter's name has counts, and no other: ``backbone`` hides
    ``norm``, so that the toolboxes' configs list each norm of each block of Swin under a longer name. Here
    ``backbone_lr_mult`` multiplies what the other rules give.

    Example::

        optim_wrapper = dict(
            constructor='eyetoy_mm.BackboneLROptimWrapperConstructor',
            paramwise_cfg=dict(backbone_lr_mult=0.1, custom_keys=dict(norm=dict(decay_mult=0.0))),
        )

    Raises:
        ValueError: ``backbone_lr_mult`` is missing or negative, or the model has no backbone.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = "", **kwargs) -> None:
        """Add a group for each parameter below ``module``; the model itself comes with an empty prefix."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        factor = self.paramwise_cfg.get("backbone_lr_mult")
        if factor is None or factor < 0:
            raise ValueError(f"paramwise_cfg needs a backbone_lr_mult of at least 0, got {factor}")
        backbone = getattr(module, "backbone", None)
        if not isinstance(backbone, nn.Module):
            raise ValueError(f"backbone_lr_mult is for models with a backbone; {type(module).__name__} has none")
        of_backbone = {id(parameter) for parameter in backbone.parameters()}
        for group in params:
            if id(group["params"][0]) in of_backbone:
                group["lr"] = group.get("lr", self.base_lr) * factor
