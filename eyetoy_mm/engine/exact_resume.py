"""A run that goes on as if it had not been interrupted: same data, same augmentation, same random numbers.

mmengine saves weights, optimizer and schedules. What it does not save: how far the data were read. In epochs it starts
the one again that was interrupted, with the augmentations of the first; in iterations it reads and augments all earlier
batches to leave them out.

Here a sample's augmentation is seeded by the run's seed and the sample's position in the stream of data. It does not
depend on which worker reads it, nor on how many there are, and what was seen is left out by its index. In another
number of processes with the same batch size over all of them, the data come in the same order. What the model draws
is seeded by iteration: :class:`~eyetoy_mm.engine.hooks.SeedIterationsHook`.

Checkpoints are saved before the evaluation that is due after the same step, and again after it where it was the best. A
run that is killed between the two evaluates first when it goes on, as mmengine does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset

from eyetoy_mm.engine.hooks.common import EVALUATED
from eyetoy_mm.engine.hooks.seed_iterations import seed_all
from eyetoy_mm.engine.samplers import compact
from eyetoy_mm.engine.save_on_error import saved_if_it_ends, saved_if_it_fails, told_if_step_fails
from eyetoy_mm.registry import LOOPS, type_name


class Position(int):
    """An index of a data set that knows where in the stream of data it stands: ``(seed, epoch, number)``."""

    stream: tuple[int, int, int]

    def __new__(cls, index: int, stream: tuple[int, int, int]) -> Position:
        """Make one."""
        position = super().__new__(cls, index)
        position.stream = stream
        return position

    def __reduce__(self) -> tuple[type[Position], tuple[int, tuple[int, int, int]]]:
        return Position, (int(self), self.stream)


class SeededDataset(Dataset):
    """A data set whose samples are read with the seed of their position; in all else the data set itself."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Position):
            seed_all(*index.stream)
        return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dataset":
            super().__setattr__(name, value)
        else:  # as hooks do that switch the pipeline
            setattr(self.dataset, name, value)


class PositionedBatches:
    """Batches of indices that know their position, from any batch sampler.

    Attributes:
        start: How many batches are left out when it is iterated over next.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.start = 0

    @property
    def sampler(self) -> Any:
        """Of single indices."""
        return self.batches.sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Position]]:
        start, self.start = self.start, 0
        rank, world_size = dist.get_dist_info()
        epoch, number = getattr(self.sampler, "epoch", 0), rank
        for batch, indices in enumerate(self.batches):
            if batch >= start:
                yield [Position(x, (self.seed, epoch, number + i * world_size)) for i, x in enumerate(indices)]
            number += len(indices) * world_size

    def __getattr__(self, name: str) -> Any:
        if name == "batches":
            raise AttributeError(name)
        return getattr(self.batches, name)


def positioned(loader: DataLoader, seed: int) -> DataLoader:
    """A loader of the same batches, whose samples are seeded by their position."""
    batches: Any = loader.batch_sampler
    batches.sampler = compact(batches.sampler)
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=PositionedBatches(batches, seed),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


class _Exact:
    """What both loops have in common: a loader of positions, made anew where a run goes on, and evaluations."""

    runner: Runner
    dataloader: DataLoader
    val_begin: int
    val_interval: int
    stop_training: bool
    _epoch: int
    _iter: int
    _decide_current_val_interval: Callable[[], None]

    def __init__(self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        self._settings = dataloader
        super().__init__(runner, self._loader(runner, dataloader), *args, **kwargs)  # type: ignore[call-arg]

    def _loader(self, runner: Runner, dataloader: Any) -> DataLoader:
        if not isinstance(dataloader, DataLoader):
            dataloader = runner.build_dataloader(copy.deepcopy(dataloader), seed=runner.seed)
        return positioned(dataloader, runner.seed)

    def _start_again(self) -> None:
        """Have samplers begin anew, with the seed of the run that goes on.

        They were built before its checkpoint was read, with another seed where the config has none, and some had begun.
        """
        if not isinstance(self._settings, DataLoader):
            seeded: Any = self.dataloader.dataset
            self._settings["dataset"] = seeded.dataset
            self.dataloader = self._loader(self.runner, self._settings)

    def _evaluate_if_due(self, done: int, end: int) -> None:
        """Evaluate after so many epochs or iterations, if the config says so."""
        if self._is_due(done, end):
            with saved_if_it_fails(self.runner):
                self.runner.message_hub.update_info(EVALUATED, done)  # in all that is saved from here on
                self.runner.val_loop.run()  # type: ignore[union-attr]

    def _evaluate_if_missed(self, done: int, end: int) -> None:
        """Evaluate what is due where a run goes on, unless its checkpoint was saved after that."""
        if self.runner.message_hub.get_info(EVALUATED) != done and self._is_due(done, end):
            self.runner.logger.info("The evaluation that is due here comes first: the checkpoint was saved before it")
            self._evaluate_if_due(done, end)

    def _call_hooks(self, point: str, part: str) -> None:
        """Call hooks between two steps; what they do is done again if one fails, where the run goes on."""
        with saved_if_it_fails(self.runner, part, "goes on from there"):
            self.runner.call_hook(point)

    def _save_where_it_stopped(self, begun: int) -> None:
        """Save the end of a run that is stopped early, as ``save_last`` means; the hook knows the last step alone.

        Args:
            begun: The iteration that this start of the run began at.
        """
        if not self.stop_training or self._iter == begun:
            return
        for hook in self.runner.hooks:
            # By epochs it saves at the end of a loop over iterations by itself, which is one epoch.
            if isinstance(hook, CheckpointHook) and hook.save_last and hook.by_epoch <= hasattr(self, "run_epoch"):
                step = self._epoch if hook.by_epoch else self._iter
                if Path(hook.last_ckpt or "").name != hook.filename_tmpl.format(step):
                    meta = dict(epoch=self._epoch, iter=self._iter)
                    hook._save_checkpoint_with_step(self.runner, step, meta=meta)

    def _is_due(self, done: int, end: int) -> bool:
        self._decide_current_val_interval()
        wanted = self.runner.val_loop is not None and done >= self.val_begin
        return wanted and (done % self.val_interval == 0 or done == end)


@LOOPS.register_module()
class ExactEpochBasedTrainLoop(_Exact, EpochBasedTrainLoop):
    """mmengine's loop over epochs; one that was interrupted goes on where it was."""

    def run(self) -> torch.nn.Module:
        """Train."""
        begun = self._iter
        if self._iter:
            self._start_again()
        self.runner.call_hook("before_train")
        if self._iter and self._iter == self._epoch * len(self.dataloader):
            self._evaluate_if_missed(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._evaluate_if_due(self._epoch, self._max_epochs)
        self._save_where_it_stopped(begun)
        self._call_hooks("after_train", "The end of the training")
        return self.runner.model

    def run_epoch(self) -> None:
        """Iterate over one epoch, or over what is left of it."""
        self._call_hooks("before_train_epoch", "The begin of the epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.start = done  # type: ignore[union-attr]
        for index, data_batch in enumerate(saved_if_it_ends(self.runner, self.dataloader), done):
            with told_if_step_fails(self.runner):
                self.run_iter(index, data_batch)
        self._call_hooks("after_train_epoch", "The end of the epoch")
        self._epoch += 1


@LOOPS.register_module()
class ExactIterBasedTrainLoop(_Exact, IterBasedTrainLoop):
    """mmengine's loop over iterations, which goes on without reading what was seen."""

    dataloader_iterator: Any

    def run(self) -> torch.nn.Module:
        """Train."""
        begun = self._iter
        if self._iter:
            self.dataloader_iterator = None  # ends its workers
            self._start_again()
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        if self._iter:
            self.dataloader_iterator = self._iterator_after(self._iter)
            self._evaluate_if_missed(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            data_batch = next(saved_if_it_ends(self.runner, self.dataloader_iterator))
            with told_if_step_fails(self.runner):
                self.run_iter(data_batch)
            self._evaluate_if_due(self._iter, self._max_iters)
        self._save_where_it_stopped(begun)
        self._call_hooks("after_train_epoch", "The end of the training")
        self._call_hooks("after_train", "The end of the training")
        return self.runner.model

    def _iterator_after(self, batches: int) -> Any:
        from mmengine.runner.loops import _InfiniteDataloaderIterator

        passes, sampler = 0, self.dataloader.batch_sampler.sampler  # type: ignore[union-attr]
        if hasattr(sampler, "epoch"):  # one that ends and is begun again; infinite ones have no use for its number
            passes, batches = divmod(batches, len(self.dataloader))
            sampler.set_epoch(passes)
        self.dataloader.batch_sampler.start = batches  # type: ignore[union-attr]
        iterator = _InfiniteDataloaderIterator(self.dataloader)
        iterator._epoch = passes
        return iterator


def go_on_exactly(config: Config) -> None:
    """Have a config's training go on exactly where it is interrupted; loops of other kinds stay as they are."""
    for hook in config.get("custom_hooks") or ():
        if isinstance(hook, dict) and type_name(hook) == "EarlyStoppingHook":
            hook["type"] = "eyetoy_mm.ExactEarlyStoppingHook"
    loop = config.train_cfg
    by_epoch = "EpochBasedTrainLoop" if loop.get("by_epoch", True) else "IterBasedTrainLoop"
    name = type_name(loop) or by_epoch
    if name in ("EpochBasedTrainLoop", "IterBasedTrainLoop"):
        loop.pop("by_epoch", None)
        loop["type"] = f"eyetoy_mm.Exact{name}"
