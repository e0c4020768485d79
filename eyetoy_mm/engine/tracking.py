"""Logs for programs that show them: TensorBoard, W&B and MLflow, by ``track`` of a config or a command line."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.visualization import WandbVisBackend
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env
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


@VISBACKENDS.register_module()
class MLflowBackend(BaseVisBackend):
    """A run of MLflow: metrics by iteration, and the config as a file of it.

    mmengine's keeps its records as files, which MLflow 3 refuses, copies every log of the work dir when it ends, and
    gives MLflow each setting of the config as a parameter, which it refuses where a value is long.

    Args:
        save_dir: Folder for the database and the files of the run, unless ``MLFLOW_TRACKING_URI`` names a server.
        experiment_name: Experiment that the run is of.
        run_name: Name of the run.
    """

    def __init__(self, save_dir: str, experiment_name: str = "eyetoy", run_name: str | None = None) -> None:
        super().__init__(save_dir)
        self.experiment_name, self.run_name = experiment_name, run_name

    @override
    def _init_env(self) -> None:
        import mlflow
        from mlflow.tracking import MlflowClient

        here = Path(self._save_dir).resolve()
        here.mkdir(parents=True, exist_ok=True)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(server or f"sqlite:///{here / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(self.experiment_name)
        files = None if server else (here / "mlflow").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment_name, files)
        self._run = self._client.create_run(experiment, run_name=self.run_name).info.run_id
        self._metric = mlflow.entities.Metric

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The client of MLflow."""
        return self._client

    @override
    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._client.log_text(self._run, config.pretty_text, "config.py")

    @override
    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        self._client.log_image(self._run, image, f"{name}/{step}.png")

    @override
    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)

    @override
    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        now = int(1000 * time.time())  # milliseconds
        metrics = [self._metric(name, float(value), now, step) for name, value in scalar_dict.items()]
        self._client.log_batch(self._run, metrics)

    @override
    def close(self) -> None:
        if hasattr(self, "_run"):
            self._client.set_terminated(self._run)


_PATIENCE = 3  # failures in a row, each of which may be a minute of waiting for a server


def end_no_run(backend: BaseVisBackend, logger: Logger) -> None:
    """Let a program that shows logs end no run: what it does not take is told, and lost to it alone.

    One that cannot be had at all still ends a run before its first step, where the config is given to it.

    Args:
        backend: Changed in place. After :data:`_PATIENCE` failures in a row it is given nothing more.
        logger: Is told.
    """
    failures = 0

    def guarded(take: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(take)
        def run(*args: Any, **kwargs: Any) -> None:
            nonlocal failures
            if failures >= _PATIENCE:
                return
            try:
                take(*args, **kwargs)
                failures = 0
            except Exception as error:
                failures += 1
                end = "is given nothing more" if failures >= _PATIENCE else "lacks that"
                told = f"{type(backend).__name__} failed in {take.__name__}: {type(error).__name__}: {error}"
                logger.warning(f"{told}. The run goes on, and {type(backend).__name__} {end}")

        return run

    for name in ("add_image", "add_scalar", "add_scalars", "close"):
        setattr(backend, name, guarded(getattr(backend, name)))


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


def _mlflow(config: Config) -> dict:
    return dict(type="eyetoy_mm.MLflowBackend", run_name=os.path.basename(os.path.normpath(config.work_dir)))


TRACKERS: dict[str, Callable[[Config], dict]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


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
            raise UserError(f"track={config.track!r} should name {', '.join(TRACKERS)}, or several of them in a list")
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
