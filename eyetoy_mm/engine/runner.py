"""mmengine's Runner, whose data are checked where they are built, and one whose model is sharded over processes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import mmengine
import torch.distributed as dist
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.fileio import join_path
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner, save_checkpoint
from mmengine.visualization import LocalVisBackend, Visualizer
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.data import DataLoader
from typing_extensions import override

from eyetoy_mm.datasets.files import why_no_image, why_not_listed
from eyetoy_mm.engine.engines import FSDP2, sharding_of
from eyetoy_mm.engine.hooks import CheckImagesHook, ShardsHook
from eyetoy_mm.engine.sharded_checkpoints import Saving, by_main_process, in_one_piece, read_in_shards
from eyetoy_mm.engine.sharding import all_processes, check_optimizer, shard_average, shard_model, shard_optimizer
from eyetoy_mm.engine.terminal_log import shorten
from eyetoy_mm.engine.tracking import end_no_run
from eyetoy_mm.errors import UserError
from eyetoy_mm.state_dicts import local_part

_SECONDS_TO_SAVE = 120  # for what is being written, of all processes, when an error ends this one


class CheckedRunner(Runner):
    """A Runner that lets its :class:`CheckImagesHook` look at each dataset as soon as it is built.

    No point of a hook is early enough: a loop by iterations starts the workers, with their copies of the dataset, when
    it is made. Its terminal has no hundreds of lines before the first step: they are in the file.
    """

    @override
    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(log_level, log_file, **kwargs)
        shorten(logger)
        return logger

    @override
    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """One of this run: a second one in a process would get the first one's, and write into its folder."""
        name = visualizer.get("name") if isinstance(visualizer, dict) else None
        kinds: list[Any] = [Visualizer]
        for kind in kinds:  # which keep their instances each for itself
            kind._instance_dict.pop(name, None)
            kinds += kind.__subclasses__()
        built = super().build_visualizer(visualizer)
        for backend in built._vis_backends.values():
            if not isinstance(backend, LocalVisBackend):
                end_no_run(backend, self.logger)
        return built

    @override
    def build_dataloader(
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        try:
            loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        except OSError as error:  # of listing its files
            raise UserError(f"the dataset cannot be listed: {why_not_listed(error)}") from error
        except ValueError as error:
            empty = _empty_dataset(error)
            if empty is None:
                raise
            raise UserError(f"a data set has no image. {why_no_image(empty)}") from error
        for hook in self.hooks:
            if isinstance(hook, CheckImagesHook):
                hook.check(loader.dataset)
        return loader


def _empty_dataset(error: ValueError) -> BaseDataset | None:
    """The data set that mmengine could not make one array of, because it found or kept nothing."""
    if "need at least one array to concatenate" not in str(error):
        return None
    passed = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((one for one in reversed(passed) if isinstance(one, BaseDataset) and not one.data_list), None)


class ShardedRunner(CheckedRunner):
    """A Runner that trains a model in shards (FSDP2), as ``engine`` of its config says.

    Until a checkpoint is loaded, all is as in any run: an ordinary model is built, initialised, averaged by hooks and
    given to its optimizer. Then all of these are sharded in place. Saving is a matter of all processes.
    """

    mesh: DeviceMesh | None = None
    _background: dist.ProcessGroup | None = None
    _saving: Saving | None = None

    @property
    def settings(self) -> FSDP2:
        """How the model is sharded."""
        return sharding_of(self.cfg)

    # --- The model ---

    @override
    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Put it on its device; sharding wraps nothing."""
        if not self.distributed:
            return super().wrap_model(None, model)
        model = model.to(get_device())
        sync_bn = self.cfg.get("sync_bn")
        return model if sync_bn is None else convert_sync_batchnorm(model, sync_bn)

    @override
    def load_or_resume(self) -> None:
        """Shard what is initialised, and load into shards."""
        if self.mesh is None:
            self._shard()
        assert self.mesh is not None
        with read_in_shards(self.mesh):
            super().load_or_resume()

    def _shard(self) -> None:
        self.mesh = all_processes()
        if isinstance(self.cfg.optim_wrapper.get("optimizer"), dict):
            check_optimizer(self.cfg.optim_wrapper.optimizer, self.mesh)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        blocks = shard_model(self.model, self.settings, self.mesh)
        shard_optimizer(self.optim_wrapper, names, self.model)
        for hook in self.hooks:
            if isinstance(hook, EMAHook):
                shard_average(hook, self.mesh)
        self.register_hook(ShardsHook(self.mesh))
        if self.settings.async_save:
            self._background = dist.new_group(backend="gloo")  # of its own: training goes on in the other
        here = sum(local_part(x).numel() for x in self.model.parameters())
        total = sum(x.numel() for x in self.model.parameters())
        self.logger.info(
            f"FSDP2: {len(blocks)} blocks and the rest are sharded over {self.mesh.size()} processes, "
            f"{here:,} of {total:,} parameters here: {', '.join(blocks)}"
        )

    # --- Checkpoints ---

    @override
    def load_checkpoint(self, filename: str, map_location: Any = "cpu", *args: Any, **kwargs: Any) -> dict:
        """Load it, from the memory of the CPU: on the device each tensor has room as shards alone."""
        return super().load_checkpoint(filename, "cpu", *args, **kwargs)

    @override
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a file, or a directory where the settings say so; without an optimizer it is a file to predict with.

        Raises:
            OSError: It cannot be written; in all processes.
        """
        self.finish_saving()
        checkpoint = self._checkpoint(save_optimizer, save_param_scheduler, meta, by_epoch)
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        path = join_path(out_dir, filename, backend_args=backend_args)
        if self.settings.checkpoints == "full" or not save_optimizer:
            whole = in_one_piece(checkpoint)
            by_main_process(lambda: save_checkpoint(whole, path, backend_args=backend_args))
        elif self._saving and (str(self._saving.path), self._saving.iteration) == (path, checkpoint["meta"]["iter"]):
            self._saving.rewrite_rest(checkpoint)  # with a best score that was not known yet
        else:
            self._saving = Saving(path, checkpoint, self._background)

    def _checkpoint(self, optimizer: bool, schedulers: bool, meta: dict | None, by_epoch: bool) -> dict[str, Any]:
        """What mmengine saves, with tensors in shards."""
        meta = dict(meta or {})
        meta.setdefault("epoch", self.epoch + by_epoch)
        meta.setdefault("iter", self.iter + (not by_epoch))
        meta.update(
            cfg=self.cfg.pretty_text,
            seed=self.seed,
            experiment_name=self.experiment_name,
            time=time.strftime("%Y%m%d_%H%M%S"),
            mmengine_version=mmengine.__version__,
        )
        if hasattr(self.train_dataloader.dataset, "metainfo"):
            meta.update(dataset_meta=self.train_dataloader.dataset.metainfo)
        checkpoint = dict(meta=meta, state_dict=self.model.state_dict(), message_hub=self.message_hub.state_dict())
        if optimizer:
            checkpoint["optimizer"] = self.optim_wrapper.state_dict()
        if schedulers and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = [each.state_dict() for each in self.param_schedulers]
        return checkpoint

    @property
    def saves_in_background(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._saving is not None and not self._saving.ended

    def when_saved(self, action: Callable[[], None]) -> None:
        """Do something now, or as soon as the checkpoint that is being written is complete."""
        if self._saving is None:
            action()
        else:
            self._saving.then(action)

    def finish_saving(self) -> None:
        """Wait for the checkpoint that is being written; all processes do.

        Raises:
            OSError: It could not be written.
        """
        if self._saving is None or self._background is None:
            return
        saving, self._saving = self._saving, None
        try:
            saving.wait()
            self._saving = saving
        except OSError as error:
            if self.cfg.get("on_save_error", "stop") != "go_on":
                raise
            self.logger.error(f"Not saved: {error}. Going on, as on_save_error='go_on' says; the last good file stays.")

    @override
    def train(self) -> nn.Module:
        """Train, to the end of the last save; one that has begun is let end before an error ends this process."""
        try:
            model = super().train()
        except Exception:
            if self._saving is not None:
                self._saving.ended_within(_SECONDS_TO_SAVE)
            raise
        self.finish_saving()
        return model
