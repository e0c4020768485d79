"""What fails between two steps loses nothing of the training, which is saved before the error ends the run.

That is an evaluation, which is made again when the run goes on, the reading of the next batch, and what hooks do at the
begin and the end of an epoch or the training, which they do again. A step that fails, up to the last hook after it, is
another matter: weights, averages and schedules may be half of it, and they are not saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapperDict, ZeroRedundancyOptimizer
from mmengine.runner import Runner

from eyetoy_mm.compat.checkpoint_loading import peek
from eyetoy_mm.compat.whole_checkpoints import REST
from eyetoy_mm.engine.engines import shards_model
from eyetoy_mm.engine.hooks.common import EVALUATED
from eyetoy_mm.engine.hooks.save_on_signal import is_whole_step, save_now, take_back_weights
from eyetoy_mm.errors import UserError
from eyetoy_mm.state_dicts import local_part

EVALUATION = "The evaluation"


@contextmanager
def saved_if_it_fails(
    runner: Runner, part: str = EVALUATION, resumed: str = "evaluates again, and goes on from there"
) -> Iterator[None]:
    """Save the training if what is within raises, as it was before, and say where; the error goes on.

    Process 0 saves by itself, for it does not know what became of the others: one that fails ends, and process 0 gets
    an error for it as soon as it asks the others. Where a checkpoint needs all of them, nothing is saved.

    Args:
        runner: Between two steps.
        part: What is within, for the message.
        resumed: What becomes of it when the run goes on.
    """
    before = _Before(runner, buffers=part != EVALUATION)
    try:
        yield
    except Exception:
        _save(runner, f"{part} failed", resumed, before)
        raise


@contextmanager
def told_if_step_fails(runner: Runner) -> Iterator[None]:
    """If the step within raises, say that it is not saved, and what is; the error goes on."""
    try:
        yield
    except UserError:  # says what it means by itself
        raise
    except Exception:
        if runner.iter and dist.is_main_process():
            what = f"The step after iteration {runner.iter} failed, and is not saved, for its weights may be half of it"
            runner.logger.error(f"{what}. {_last(runner)}.")
        raise


def saved_if_it_ends(runner: Runner, batches: Iterable[Any]) -> Iterator[Any]:
    """Batches; where the next one cannot be read, save the training and say where, and the error goes on."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except Exception:
            _save(runner, "The next batch could not be read", "goes on from there")
            raise
        yield batch


class _Before:
    """What an evaluation, or hooks between two steps, change of that which a checkpoint holds, as it was."""

    def __init__(self, runner: Runner, buffers: bool) -> None:
        self.runner = runner
        self.buffers = buffers
        self.sums = self._sums()
        self.known = dict(runner.message_hub.runtime_info)  # the best score, and the like
        self.schedules = [each.state_dict() for each in _schedules(runner)]  # those that follow metrics
        self.settings = [{key: x for key, x in group.items() if key != "params"} for group in _groups(runner)]

    def _sums(self) -> list[float]:
        """By which averaged weights, or half of them, are told from those of the training.

        Hooks may set buffers anew, as batch norm's; an evaluation has those of all processes.
        """
        model: Any = self.runner.model
        sums = [local_part(x.detach()).float().sum().item() for x in model.parameters()]
        buffers = model.buffers() if self.buffers else ()
        return sums + [local_part(x.detach()).float().nan_to_num(0, 0, 0).sum().item() for x in buffers]

    def restore(self) -> None:
        """Make the run what it was.

        Raises:
            RuntimeError: The weights cannot be had again, or are not finite.
        """
        if self._sums() != self.sums:
            take_back_weights(self.runner)
            if self._sums() != self.sums:
                raise RuntimeError("the model does not have the weights of the training, or they are not finite")
        known = self.runner.message_hub.runtime_info
        known.clear()
        known.update(self.known)
        for schedule, state in zip(_schedules(self.runner), self.schedules):
            schedule.load_state_dict(state)
        for group, settings in zip(_groups(self.runner), self.settings):
            group.update(settings)


def _save(runner: Runner, failed: str, resumed: str, before: _Before | None = None) -> None:
    if not runner.iter:
        return
    failed = f"{failed} after iteration {runner.iter}, which"
    if shared := _shared_by_all(runner):
        runner.logger.error(f"{failed} is not saved: {shared}, and have to save it together. {_last(runner)}")
    elif dist.is_main_process():
        try:
            if before is not None:
                before.restore()
            path = _saved_already(runner) or save_now(runner, runner.iter)
        except Exception as error:  # of a device that is lost, a full disk: the error that goes on says more
            runner.logger.error(f"{failed} cannot be saved: {type(error).__name__}: {error}. {_last(runner)}")
            return
        if path is None:
            runner.logger.error(f"{failed} is not saved. {_last(runner)}")
            return
        part = "" if is_whole_step(runner) else " (without the gradients that were being accumulated)"
        runner.logger.error(f"{failed} is saved{part} in {path}: --resume {resumed}.")


def _shared_by_all(runner: Runner) -> str:
    """What a checkpoint needs that is in no process as a whole."""
    processes = dist.get_world_size()
    if processes == 1:
        return ""
    if shards_model(runner.cfg):
        return f"the {processes} processes have a shard of the model each"
    if any(isinstance(each.optimizer, ZeroRedundancyOptimizer) for each in _wrappers(runner)):
        return f"the {processes} processes have a part of the optimizer's state each"
    return ""


def _last(runner: Runner) -> str:
    note = Path(runner.work_dir, "last_checkpoint")
    return f"The last checkpoint is {note.parent / note.read_text().strip()}" if note.is_file() else "There is none"


def _saved_already(runner: Runner) -> str | None:
    """The checkpoint that was due after the same iteration, before its evaluation."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    path = hook.last_ckpt if hook is not None else None
    if path is None or not os.path.exists(path):
        return None
    saved: Any = peek(os.path.join(path, REST) if os.path.isdir(path) else path)
    evaluated = saved["message_hub"]["runtime_info"].get(EVALUATED)
    is_this = (saved["meta"]["iter"], evaluated) == (runner.iter, runner.message_hub.runtime_info.get(EVALUATED))
    return path if is_this and "optimizer" in saved else None


def _schedules(runner: Runner) -> list[Any]:
    found: Any = runner.param_schedulers or []
    return [each for several in found.values() for each in several] if isinstance(found, dict) else found


def _groups(runner: Runner) -> list[dict[str, Any]]:
    return [group for each in _wrappers(runner) for group in each.param_groups]


def _wrappers(runner: Runner) -> list[Any]:
    wrapper: Any = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
