"""A model, its average and its optimizer in shards: each process has a part of every tensor.

What is built, initialised and given to an optimizer is an ordinary model; then its parameters become shards in place.
State dicts keep names, shapes and the order of the optimizer, so that what is saved of shards, gathered, is what an
unsharded run saves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from eyetoy_mm.engine.blocks import block_names
from eyetoy_mm.engine.engines import FSDP2
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.state_dicts import gathered

# --- Tensors ----------------------------------------------------------------------------------------------------------


def all_processes() -> DeviceMesh:
    """The processes of a run, over which tensors are sharded."""
    return init_device_mesh(torch.device(get_device()).type, (dist.get_world_size(),))


def shard_of(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """A tensor that every process has, in shards along its first dimension, as ``fully_shard`` makes them."""
    x = x.to(mesh.device_type)
    return distribute_tensor(x, mesh, [Shard(0)], src_data_rank=None).clone()


# --- The model --------------------------------------------------------------------------------------------------------


def shard_model(model: nn.Module, settings: FSDP2, mesh: DeviceMesh) -> list[str]:
    """Shard a model in place: its blocks each for itself, and the rest together.

    Heads are part of the rest, because toolboxes call their ``loss`` and ``predict``, which no hook precedes.

    Args:
        model: Initialised, on its device.
        settings: How.
        mesh: The processes.

    Returns:
        The names of the blocks.

    Raises:
        UserError: It has parameters that cannot be sharded, or no blocks of the wanted names.
    """
    if scalars := [name for name, x in model.named_parameters() if x.dim() == 0]:
        raise UserError(
            f"FSDP2 shards tensors along their first dimension, and {first_few(scalars)} have none (of "
            f"{type(model).__name__}). Set engine='DDP'"
        )
    policy = MixedPrecisionPolicy(
        param_dtype=_dtype(settings.param_dtype),
        reduce_dtype=_dtype(settings.reduce_dtype),
        output_dtype=None if settings.param_dtype is None else torch.float32,
    )
    names = block_names(model, settings.blocks)
    for name in names:
        block = model.get_submodule(name)
        if settings.param_dtype not in (None, "float32") and any("running_mean" in x for x, _ in block.named_buffers()):
            raise UserError(
                f"engine.param_dtype={settings.param_dtype!r}: the block {name} ({type(block).__name__}) has batch "
                "norm, whose statistics are float32. Leave it out; --amp computes in mixed precision"
            )
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=settings.reshard_after_forward)
    fully_shard(model, mesh=mesh)
    return names


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)


def forget_gathered(model: nn.Module) -> None:
    """Leave shards alone in the memory: after a forward without backward the rest of a model is still gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def shard_average(hook: EMAHook, mesh: DeviceMesh) -> None:
    """Shard the averaged weights of a hook in place; they are not computed with, but kept, saved and swapped."""
    average: Any = hook.ema_model
    for module in average.module.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            shards = nn.Parameter(shard_of(parameter.detach(), mesh), requires_grad=False)
            module.register_parameter(name, shards)
    average.avg_parameters = (
        average.module.state_dict() if average.update_buffers else dict(average.module.named_parameters())
    )


# --- The optimizer ----------------------------------------------------------------------------------------------------


def shard_optimizer(wrapper: OptimWrapper, names: dict[int, str], model: nn.Module) -> None:
    """Give an optimizer that has taken no step the shards of its parameters.

    Args:
        wrapper: Of the optimizer.
        names: Of the parameters before, by their ``id``.
        model: In shards.
    """
    parameters = dict(model.named_parameters())
    for group in wrapper.optimizer.param_groups:
        group["params"] = [parameters[names[id(x)]] for x in group["params"]]
    if wrapper.clip_grad_kwargs and wrapper.clip_func is torch.nn.utils.clip_grad_norm_:
        wrapper.clip_func = _clip_by_whole_norm


def optimizer_parameters(optimizer: torch.optim.Optimizer) -> dict[int, Tensor]:
    """The parameters of an optimizer by the number that its state dict gives each."""
    saved = optimizer.state_dict()["param_groups"]
    pairs = zip(saved, optimizer.param_groups)
    return {index: x for numbers, group in pairs for index, x in zip(numbers["params"], group["params"])}


def _clip_by_whole_norm(*args: Any, **kwargs: Any) -> Tensor:
    """The norm that is logged is that of all shards."""
    return gathered(torch.nn.utils.clip_grad_norm_(*args, **kwargs))


def check_optimizer(settings: dict[str, Any], mesh: DeviceMesh) -> None:
    """Check that an optimizer does to shards what it does to whole tensors, by some steps of a small one.

    Args:
        settings: Its dict in a config.
        mesh: The processes.

    Raises:
        UserError: It does something else, or fails.
    """
    rows = 2 * mesh.size() + 1
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(rows, 3, generator=generator) for _ in range(4))
    try:
        one, other = (
            _stepped(settings, start, gradients, place) for place in (_on_device, lambda x: shard_of(x, mesh))
        )
    except Exception as error:  # whatever an optimizer raises that does not know shards
        reason = f"it fails on them: {' '.join(str(error).split())[:300] or type(error).__name__}"
    else:
        if torch.allclose(one, other, rtol=1e-4, atol=1e-6):
            return
        reason = "its steps on them are others than on whole tensors"
    raise UserError(
        f"optim_wrapper.optimizer.type={settings['type']!r} does not know shards: {reason}. Take one that computes "
        "each weight by itself, as AdamW and SGD, or set engine='DDP'"
    )


def _on_device(x: Tensor) -> Tensor:
    return x.to(get_device(), copy=True)


def _stepped(
    settings: dict[str, Any], start: Tensor, gradients: list[Tensor], place: Callable[[Tensor], Tensor]
) -> Tensor:
    parameter = nn.Parameter(place(start))
    optimizer = OPTIMIZERS.build(dict(copy.deepcopy(settings), params=[parameter]))
    for gradient in gradients:
        parameter.grad = place(gradient)
        optimizer.step()
    return gathered(parameter.detach())
