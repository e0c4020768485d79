"""A model in shards, for hooks that know whole tensors."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from eyetoy_mm.engine.sharding import forget_gathered, optimizer_parameters, shard_of


class ShardsHook(Hook):
    """Shard what is loaded as the model is, and have it in shards where weights are swapped for averaged ones.

    Args:
        mesh: The processes over which the model is sharded.
    """

    priority = "HIGH"  # after what names and compares the tensors of a checkpoint, before EMAHook

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Shard the tensors of a checkpoint that are whole."""
        parameters = dict(runner.model.named_parameters())
        averages = {f"module.{name}": x for name, x in parameters.items()}
        self._shard(checkpoint.get("state_dict"), parameters)
        self._shard(checkpoint.get("ema_state_dict"), averages)
        optimizer = checkpoint.get("optimizer") or {}
        for index, parameter in optimizer_parameters(runner.optim_wrapper.optimizer).items():
            state = (optimizer.get("state") or {}).get(index) or {}
            self._shard(
                state, {key: parameter for key, x in state.items() if getattr(x, "shape", ()) == parameter.shape}
            )

    def _shard(self, state: dict[str, Any] | None, parameters: dict[str, Tensor]) -> None:
        for name, x in (state or {}).items():
            if name in parameters and isinstance(x, Tensor) and not isinstance(x, DTensor) and x.dim():
                state[name] = shard_of(x, self.mesh)  # type: ignore[index]

    def before_val_epoch(self, runner: Runner) -> None:
        """Drop what was gathered in training."""
        forget_gathered(runner.model)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Drop what was gathered of averaged weights."""
        forget_gathered(runner.model)
