"""Logs for programs that show them: TensorBoard and Weights & Biases, by ``track`` of a config or a command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.visualization import WandbVisBackend
from mmengine.visualization.vis_backend import force_init_env
from typing_extensions import override

from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import VISBACKENDS, type_name


@VISBACKENDS.register_module()
class WandbBackend(WandbVisBackend):
    """mmengine's, with the iteration of each value, and without a copy of all code in the current folder.

    mmengine leaves the step to W&B, which counts calls: the curves of a run that was resumed, or logs evaluations in
    between, are then of no iteration. It closes with a function that W&B no longer has.
    """

    @override
    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._wandb.config.update(config.to_dict(), allow_val_change=True)

    @override
    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self._wandb.log({**scalar_dict, "step": step}, commit=self._commit)

    @override
    def close(self) -> None:
        if hasattr(self, "_wandb"):
            self._wandb.finish()


def _tensorboard(config: Config) -> dict:
    return dict(type="mmengine.TensorboardVisBackend")


def _wandb(config: Config) -> dict:
    """Offline, unless the environment says otherwise: what is trained is told to nobody by default."""
    settings = dict(
        mode=os.environ.get("WANDB_MODE", "offline"),
        project=os.environ.get("WANDB_PROJECT", "eyetoy"),
        name=os.path.basename(os.path.normpath(config.work_dir)),
    )
    return dict(type="eyetoy_mm.WandbBackend", init_kwargs=settings)


TRACKERS: dict[str, Callable[[Config], dict]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def add_trackers(config: Config) -> None:
    """Let a run log for the programs that ``track`` of a config names, besides its own files.

    Args:
        config: Changed in place; left as it is where it has no ``track``.

    Raises:
        UserError: There is no such program, or its package is not installed.
    """
    wanted = config.get("track") or []
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in wanted:
        if name not in TRACKERS:
            raise UserError(f"track={config.track!r} should name {' or '.join(TRACKERS)}, or both in a list")
        if find_spec(name) is None:
            raise UserError(f"track={name!r} needs the package {name}, which is not installed: pip install {name}")
    if not wanted:
        return
    if config.get("visualizer") is None:
        config.visualizer = dict(type="mmengine.Visualizer")
    backends = [*(config.visualizer.get("vis_backends") or [dict(type="mmengine.LocalVisBackend")])]
    present = {type_name(backend) for backend in backends}
    new = [TRACKERS[name](config) for name in dict.fromkeys(wanted)]
    config.visualizer.vis_backends = [*backends, *(b for b in new if type_name(b) not in present)]
