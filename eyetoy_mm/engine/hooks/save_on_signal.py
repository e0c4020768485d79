"""A run that is told to stop saves first."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.util import register_after_fork
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner import runner as runner_file

from eyetoy_mm.engine.hooks.common import EVALUATED
from eyetoy_mm.engine.hooks.shards import ShardsHook
from eyetoy_mm.errors import UserError, let_go_of
from eyetoy_mm.registry import HOOKS

STOPPED = 85
# Windows has the first alone.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
# Those that a shell has ignored by what it runs in the background, or nohup; they, and users' own handlers, stay.
_OF_TERMINALS = {signal.SIGINT: signal.default_int_handler, getattr(signal, "SIGHUP", None): signal.SIG_DFL}
_SAME = 1.0  # seconds within which two interrupts are one: a launcher hands on what the terminal has sent to all
_TEMPLATE = "iter_{}.pth"


@HOOKS.register_module()
class SaveOnSignalHook(Hook):
    """Save and end when the process is told to: SIGTERM (preemption, torchrun), SIGUSR1 (``sbatch --signal``), Ctrl-C.

    So it is by SIGHUP, when the terminal is closed or the connection to it breaks; under nohup it runs on.

    All processes end after the iteration in which one of them was told, with one checkpoint; where gradients are
    accumulated, after the one that uses them, for a checkpoint does not hold them. An evaluation, which can take longer
    than launchers wait, is left, and made when the run goes on. What loads data is not disturbed: launchers signal
    whole process groups, and without its workers a run could not finish the iteration.

    Ctrl-C ends by a ``KeyboardInterrupt``, once all is saved. A second one ends at once, as does any before training.

    Args:
        exit_code: The exit status that says "stopped, and saved": what starts the run may start it again.
    """

    priority = "LOWEST"  # after the checkpoint of this iteration, if it has one, and its evaluation

    def __init__(self, exit_code: int = STOPPED) -> None:
        self.exit_code = exit_code
        self.told = 0
        self.told_child = False
        self._process = os.getpid()
        self._group: Any = None
        self._batches = 0
        self._trains = False
        self._interrupted: float | None = None
        self._before: dict[int, Any] = {}
        self._closed = False
        # Now, because loops start their workers when they are built, and those have the handlers of that moment.
        if threading.current_thread() is threading.main_thread():
            self._take_signals()
        runner_file.default_worker_init_fn = _init_undisturbed_worker  # of workers that are spawned, too
        register_after_fork(self, _let_parent_end)

    def _take_signals(self) -> None:
        for number in (*_SIGNALS, signal.SIGINT):
            other = getattr(signal.getsignal(number), "__self__", None)
            if isinstance(other, SaveOnSignalHook):  # of a run that failed in this process, and closed nothing
                other.close()
            if number not in _OF_TERMINALS or signal.getsignal(number) is _OF_TERMINALS[number]:
                ours = self._interrupt if number == signal.SIGINT else self._tell
                self._before[number] = signal.signal(number, ours)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.told = number
            _let_go_of_output()  # of a terminal that is closed
        else:  # a child that has no ways of its own yet
            self.told_child = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a child, that has no ways of its own yet and will ignore it
        if not self._trains:
            signal.default_int_handler(number, frame)
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            self.told = self.told or number
            # No print: it may be that which is interrupted. What reads it, as `| tee`, may have been ended.
            with contextlib.suppress(OSError):
                os.write(2, b"\nCtrl-C: this iteration is finished and saved. Another Ctrl-C ends the run at once.\n")
        elif now - self._interrupted > _SAME:
            signal.default_int_handler(number, frame)

    def before_train(self, runner: Runner) -> None:
        """Find the way on which processes ask each other."""
        self._trains = True
        if dist.is_initialized() and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")  # CPU tensors: no device waits for it

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Save and end if a process was told to."""
        told = self._most(self.told)
        if told and is_whole_step(runner):
            self._end(runner, told, runner.iter + 1)

    def before_val(self, runner: Runner) -> None:
        """Count the batches of this evaluation that all processes have; other evaluations are not left."""
        known = runner.message_hub.get_info(EVALUATED) is not None or not runner.iter  # a loop of ours, or untrained
        self._batches = -self._most(-len(runner.val_dataloader)) if known and is_whole_step(runner) else 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Leave the evaluation, save and end if a process was told to."""
        self._batches -= 1
        told = self._most(self.told) if self._batches >= 0 else 0
        if not told:
            return
        take_back_weights(runner)
        runner.message_hub.update_info(EVALUATED, None)
        self._end(runner, told, runner.iter)

    def _most(self, number: int) -> int:
        """The largest of all processes' numbers."""
        if not dist.is_initialized():
            return number
        shared = torch.tensor([number])
        try:
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._group)
        except RuntimeError as error:
            raise UserError(f"another process of this run has ended, and says why where it did: {error}") from error
        return int(shared)

    def _end(self, runner: Runner, told: int, done: int) -> None:
        _let_go_of_output()
        interrupted = told == signal.SIGINT
        name = "Ctrl-C" if interrupted else signal.Signals(told).name
        status = "" if interrupted else f", then exit status {self.exit_code}"
        what = f"saving at iteration {done}" if done else "nothing is trained yet, and nothing to be saved"
        runner.logger.warning(f"{name}: {what}{status}.")
        if done:
            if save_now(runner, done) is None:
                runner.logger.error("Not saved: what is said above is the reason.")
            else:
                runner.logger.warning("Saved. Start it again with --resume, and it goes on from here.")
        for hook in runner.hooks:
            if hasattr(hook, "before_stop"):  # what little there is to do besides, once all is saved
                hook.before_stop(runner)
        if dist.is_initialized():
            dist.barrier(group=self._group)
            dist.destroy_process_group()
        self.close()
        if interrupted:
            raise KeyboardInterrupt
        sys.exit(self.exit_code)

    def after_train(self, runner: Runner) -> None:
        """Leave signals as they were."""
        self.close()

    def close(self) -> None:
        """Leave signals as they were; also where a run ends in an error, for the process may go on."""
        self._trains, self._closed = False, True
        runner_file.default_worker_init_fn = _init_worker
        while self._before and threading.current_thread() is threading.main_thread():  # others may not
            number, before = self._before.popitem()
            if signal.getsignal(number) in (self._tell, self._interrupt):  # not another's, who came after
                signal.signal(number, before)


def _let_go_of_output() -> None:
    """Let what nobody can read any more go nowhere: a hook that prints would fail in the middle of a step."""
    for stream in (sys.stdout, sys.stderr):
        let_go_of(stream)


def take_back_weights(runner: Runner) -> None:
    """Give a model its own weights again, where hooks have changed them for an evaluation that is left."""
    for hook in runner.hooks:
        # Its after_val_epoch does more: mmpretrain's begins a second evaluation, or has changed nothing.
        if isinstance(hook, EMAHook) and getattr(hook, "evaluate_on_ema", True):
            hook._swap_ema_parameters()
        elif isinstance(hook, ShardsHook):
            hook.after_val_epoch(runner)


def save_now(runner: Runner, done: int) -> str | None:
    """Save a checkpoint to go on from, between those that are due, and wait until it is written.

    Args:
        runner: Between two iterations, with the weights of the training in its model.
        done: Iterations of the run.

    Returns:
        Its path; None where it cannot be written, and the run goes on in spite of that (``on_save_error``).

    Raises:
        OSError: It cannot be written.
    """
    meta = dict(epoch=runner.epoch, iter=done)
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is None:
        runner.save_checkpoint(runner.work_dir, _TEMPLATE.format(done), meta=meta, by_epoch=False)
        path = os.path.join(runner.work_dir, _TEMPLATE.format(done))
    else:
        settings = hook.by_epoch, hook.filename_tmpl, hook.max_keep_ckpts
        if settings[:2] != (False, _TEMPLATE):  # in the middle of an epoch; not one of those that it counts
            hook.by_epoch, hook.filename_tmpl, hook.max_keep_ckpts = False, _TEMPLATE, -1
        try:
            hook._save_checkpoint_with_step(runner, done, meta=meta)
        finally:
            hook.by_epoch, hook.filename_tmpl, hook.max_keep_ckpts = settings
        path = hook.file_backend.join_path(hook.out_dir, _TEMPLATE.format(done))
    if hasattr(runner, "finish_saving"):  # in the background
        runner.finish_saving()
    written = runner.rank != 0 or hook is None or hook.file_backend.exists(path)
    return path if written else None


def is_whole_step(runner: Runner) -> bool:
    """Whether no gradients wait for those of more iterations."""
    wrapper: Any = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(each.should_update() for each in wrappers)


_init_worker = runner_file.default_worker_init_fn


def _init_undisturbed_worker(worker_id: int, **kwargs: Any) -> None:
    """Start a worker that only its own process ends.

    PyTorch's workers die of any SIGTERM.
    """
    _init_worker(worker_id, **kwargs)
    _let_parent_end()


def _let_parent_end(hook: SaveOnSignalHook | None = None) -> None:
    """Let a child of this process take its signals from its parent alone.

    With the handler that it inherits it would outlive its process, or a pool (metrics have such) that ends its workers
    waited for them for ever: multiprocessing ends its children with SIGTERM. So a thread takes the signals, and asks
    who sent them. One that came before is taken for its parent's. Ctrl-C is its parent's affair.
    """
    if hook is not None and hook._closed:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    can_wait = hasattr(signal, "sigwaitinfo")  # not on macOS
    if can_wait:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if hook is not None and hook.told_child:  # asked when no more can come that nobody asks for
        os._exit(0)
    if not can_wait:
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = os.getppid()
    while True:
        if signal.sigwaitinfo(_SIGNALS).si_pid == parent or os.getppid() != parent:
            os._exit(0)
