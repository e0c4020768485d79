"""Backbones that load their pretrained weights in a way of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import PretrainedInit
from mmengine.runner import Runner
from torch import Tensor, nn

from eyetoy_mm.backbones.pretrained import is_allowed, read_state
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.errors import first_few
from eyetoy_mm.registry import HOOKS
from eyetoy_mm.state_dicts import gathered


@HOOKS.register_module()
class CheckInitialisedHook(Hook):
    """Refuse modules with ``init_cfg`` of type ``Pretrained`` whose weights are, after all, as they were built.

    Swin, BEiT, PVT and others of mmdet and mmseg read the file in their own ``init_weights``, and say nothing of what
    does not fit. Looked at are tensors of two or more dimensions, which no file has as they were built by chance; fixed
    ones, such as sines of positions, may be in it.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Keep the weights that the models were built with."""
        self.built: dict[str, tuple[str, dict[str, Tensor]]] = {}
        for name, module, source in _pretrained(unwrapped(runner)):
            weights = {key: x.detach().clone() for key, x in module.named_parameters() if x.dim() > 1}
            self.built[name] = (source, weights)

    def before_train(self, runner: Runner) -> None:
        """Compare.

        Raises:
            CheckpointError: Some are the same still.
        """
        model = unwrapped(runner)
        for name, (source, built) in self.built.items():
            now = {key: gathered(x.detach()) for key, x in model.get_submodule(name).named_parameters() if key in built}
            same = [key for key, x in built.items() if key in now and bool((now[key] == x.to(now[key])).all())]
            same = [key for key in same if not is_allowed(f"{name}.{key}" if name else key)]
            if same:
                there = list(read_state(source).values())
                same = [key for key in same if not any(torch.equal(built[key].cpu(), x.cpu()) for x in there)]
            same = [f"{name}.{key}" if name else key for key in same]
            if same:
                raise CheckpointError(
                    f"{source} does not fit {name or 'the model'}: {len(same)} of {len(built)} weights are as they "
                    f"were built ({first_few(same, 6)}). Is it of another arch, or are its names others? What may stay "
                    f"has to be named in the config: load_from_allow_missing = [{same[0].rpartition('.')[0]!r}, ...]"
                )
        self.built = {}


def _pretrained(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Modules with a checkpoint of their own, by name."""
    for name, module in model.named_modules():
        configs: Any = getattr(module, "init_cfg", None) or ()
        for config in configs if isinstance(configs, list | tuple) else [configs]:
            kind = config.get("type") if isinstance(config, dict) else None
            if kind == "Pretrained" or (isinstance(kind, type) and issubclass(kind, PretrainedInit)):
                yield name, module, str(config.get("checkpoint"))
