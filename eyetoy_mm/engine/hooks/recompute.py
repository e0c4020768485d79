"""Less memory for more computing: what a block computes is forgotten, and computed again when gradients need it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.checkpoint import checkpoint

from eyetoy_mm.engine.blocks import block_names
from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class RecomputeBlocksHook(Hook):
    """Activation checkpointing (Chen et al., 2016) of the blocks of a model, in training.

    ``eyetoy train`` adds it where a config has ``activation_checkpointing``. mmengine's own takes names alone, and is
    re-entrant: a block whose input needs no gradient, as the first after frozen stages, would have no gradient itself.

    Args:
        blocks: Names of classes or modules; None for the blocks of the backbone, see :func:`.block_names`.
    """

    def __init__(self, blocks: list[str] | None = None) -> None:
        self.blocks = blocks
        self.modules: list[torch.nn.Module] = []

    def before_train(self, runner: Runner) -> None:
        """Have the blocks compute again.

        Raises:
            UserError: The model has no blocks of these names.
        """
        model = unwrapped(runner)
        names = block_names(model, self.blocks)
        self.modules = [model.get_submodule(name) for name in names]
        for module in self.modules:
            module.forward = _recomputed(module.forward)  # type: ignore[method-assign]
        runner.logger.info(f"Activation checkpointing of {len(names)} blocks: {', '.join(names)}")

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        for module in self.modules:
            del module.forward
        self.modules = []


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
