"""Numbers that are none: a run whose loss, gradients or weights become NaN or infinite stops, and says where."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from eyetoy_mm.engine.hooks.common import image_paths, unwrapped
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.registry import HOOKS
from eyetoy_mm.state_dicts import local_part

_FINE, _ODD, _BROKEN = range(3)  # what processes tell each other about a step
_HISTORY = 100  # losses that a spike is compared with
_MAX_PATHS = 1024
_IDLE = 10  # updates with gradients of 0 before a run is said to learn nothing; no batch that has labels gives one
_MAX_SKIPPED = 30  # steps in a row: a loss scale that was 65536 is below 1e-4 then, where no gradient overflows


@HOOKS.register_module()
class StopOnNonFiniteHook(Hook):
    """Stop before a broken checkpoint is saved, with the step, what is not finite, the batch and where to go on from.

    Looked at are the loss of every step, the gradients before they are clipped, and the weights before a checkpoint is
    saved and before validation in training. Where several processes train, all stop in the same step, with one message
    that names the rank whose loss it was. In mixed precision with a loss scale, infinite gradients are part of the game
    and their steps are skipped; too many in a row are not. Gradients that are all 0 from the first update on end the
    run after ten: losses of no weight, labels that are ignored, everything frozen. Loss spikes are logged with the
    images that had them.

    What it costs: the norm of the gradients, one pass over all of them, read back when the loss has been anyway; the
    median of some losses; with several processes the exchange of one number.

    Args:
        stop: False: warn, and go on.
        spike_factor: How many times the median of the last 100 losses is a spike; None: none is.
    """

    priority = "HIGH"  # after RuntimeInfoHook, which waits for the loss; before all that keep or save weights

    def __init__(self, stop: bool = True, spike_factor: float | None = 10.0) -> None:
        if spike_factor is not None and not spike_factor > 1:
            raise ValueError(f"spike_factor must be greater than 1, or None, got {spike_factor}")
        self.stop, self.spike_factor = stop, spike_factor
        self.losses: deque[float] = deque(maxlen=_HISTORY)
        self.quiet_until = 0  # a spike of many steps is told once
        self.watches: list[_Gradients] = []
        self.paths: deque[str] = deque(maxlen=_MAX_PATHS)  # of images whose gradients no optimizer has taken yet

    def before_train(self, runner: Runner) -> None:
        """Watch what the optimizers are given."""
        names = {id(parameter): name for name, parameter in unwrapped(runner).named_parameters()}
        wrapper = runner.optim_wrapper
        wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self.watches = [_Gradients(each, names) for each in wrappers if isinstance(each, OptimWrapper)]

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizers as they were."""
        for watch in self.watches:
            watch.end()
        self.watches = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the step that was.

        Raises:
            UserError: Loss, gradients or, where a checkpoint is to be saved, weights are not finite.
        """
        losses, paths = not_finite_losses(outputs or {}), image_paths(data_batch)
        shared: list[str] = []
        if any(watch.looked for watch in self.watches):
            shared = [each for watch in self.watches for each in watch.take()]
            if shared and not losses:
                paths = [*self.paths, *paths]  # gradients of several batches where they are accumulated
            self.paths.clear()
        elif self.watches:
            self.paths.extend(paths)
        if self.watches and all(watch.idle == _IDLE for watch in self.watches):
            self._tell_idle(runner)
        if any(due(runner, hook) for hook in runner.hooks if isinstance(hook, CheckpointHook)):
            shared += not_finite_weights(unwrapped(runner).state_dict())
        odd = "" if losses or shared else self._spike(runner.iter + 1, outputs or {})
        state = agreed(_BROKEN if losses or shared else _ODD if odd else _FINE)
        if state == _FINE:
            return
        told = dist.all_gather_object(Told(losses, shared, odd, paths, not_finite_images(data_batch)))
        if state == _BROKEN:
            self._refuse(runner, broken_step(runner.iter + 1, told))
        for each in told:
            if each.odd:
                shown = first_few(each.paths, 8) if each.paths else "without paths"
                runner.logger.warning(f"{each.odd}; images: {shown}")

    def _tell_idle(self, runner: Runner) -> None:
        """Stop a run that does not learn; gradients are the same in all processes."""
        count = sum(watch.count for watch in self.watches)
        message = (
            f"nothing is learnt: the gradients of all {count} parameters were 0 in each of the first {_IDLE} updates. "
            "Look at loss_weight, class_weight and ignore_index of the losses, and at what is frozen"
        )
        if self.stop:
            raise UserError(message)
        for watch in self.watches:
            watch.idle = -1
        runner.logger.warning(message)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the weights where checkpoints go by epochs; the hook of checkpoints deletes old ones before it saves.

        Raises:
            UserError: They are not finite.
        """
        self._check_weights(runner, unwrapped(runner).state_dict())

    def before_val_epoch(self, runner: Runner) -> None:
        """Look at the weights before time is spent on them, and the best checkpoint is chosen.

        Raises:
            UserError: They are not finite, in training.
        """
        if self.watches:
            self._check_weights(runner, unwrapped(runner).state_dict())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what is going to be written, which may be an average of the weights.

        Raises:
            UserError: It is not finite.
        """
        wrong = not_finite_weights(checkpoint["state_dict"])
        if wrong:  # not agreed upon: only one process may be here
            unsaved = ". The checkpoint is not saved" if self.stop else ""
            self._refuse(runner, f"step {runner.iter}: {'; '.join(wrong)}{unsaved}")

    def _check_weights(self, runner: Runner, weights: Mapping[str, Any]) -> None:
        wrong = not_finite_weights(weights)
        if agreed(_BROKEN if wrong else _FINE) == _BROKEN:
            told = dist.all_gather_object(wrong)
            reasons = dict.fromkeys(reason for each in told for reason in each)
            self._refuse(runner, f"step {runner.iter}: {'; '.join(reasons)}")

    def _spike(self, step: int, outputs: Mapping[str, Any]) -> str:
        """What to say of a loss far above those before, or nothing."""
        if self.spike_factor is None or "loss" not in outputs:
            return ""
        loss = _number(outputs["loss"])
        usual = statistics.median(self.losses) if len(self.losses) >= _HISTORY // 2 else math.inf
        self.losses.append(loss)
        if not 0 < usual * self.spike_factor < loss or step < self.quiet_until:
            return ""
        self.quiet_until = step + _HISTORY // 2
        return f"loss spike in step {step}: {loss:.4g}, {loss / usual:.0f} times the usual {usual:.4g} (median)"

    def _refuse(self, runner: Runner, message: str) -> None:
        if not self.stop:
            runner.logger.warning(message)
            return
        latest = Path(runner.work_dir, "last_checkpoint")
        again = "No checkpoint has been saved yet"
        if latest.is_file():
            again = f"Go on from the last checkpoint: --resume {latest.parent / latest.read_text().strip()}"
        raise UserError(
            f"{message}. {again}. Look at these images and their annotations first, at the learning rate, and at "
            "gradient clipping (optim_wrapper.clip_grad). To train through it all the same: "
            'custom_hooks=[dict(type="eyetoy_mm.StopOnNonFiniteHook", stop=False)]'
        )


class _Gradients:
    """What an optimizer is given in a step: whether it is finite, known when the device has come to it.

    Args:
        wrapper: The optimizer's wrapper; its ``step`` is preceded by a look from now on.
        names: Of parameters, by their ``id``.
    """

    def __init__(self, wrapper: OptimWrapper, names: Mapping[int, str]) -> None:
        self.wrapper, self.names = wrapper, names
        self.scaled = isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.is_enabled()
        self.gradients: list[tuple[str, Tensor]] = []
        self.norm: Tensor | None = None
        self.skipped = 0
        self.idle = 0  # updates with gradients of 0, from the first on; -1 once there was another
        self.count = 0
        self.looked = False  # in a step that has not been told of
        self.wrong: list[str] = []
        self.step: Callable[..., None] = wrapper.step
        wrapper.step = self._look_and_step

    def end(self) -> None:
        """Give the wrapper its own ``step`` back; a second hook's watch, which wraps this one, finds nothing to do."""
        vars(self.wrapper).pop("step", None)

    def _look_and_step(self, **kwargs: Any) -> None:
        self.looked = True
        groups = self.wrapper.optimizer.param_groups
        parameters = [x for group in groups for x in group["params"] if x.grad is not None]
        self.gradients = [(self.names.get(id(x), "a parameter"), local_part(x.grad)) for x in parameters]
        dense = [x for _, x in self.gradients if x.layout == torch.strided]
        self.norm = torch.nn.utils.get_total_norm(dense) if dense else None
        if self.wrapper.clip_grad_kwargs and not self.scaled:
            self._tell()  # clipping waits for the device too, and makes all gradients NaN where one is
        self.step(**kwargs)

    def take(self) -> list[str]:
        """What was wrong with the step that was, and forget it: the gradients are not to outlive it."""
        self._tell()
        wrong, self.wrong, self.looked = self.wrong, [], False
        return wrong

    def _tell(self) -> None:
        if self.norm is None:
            return
        suspect = not math.isfinite(self.norm)  # the squares of large gradients are infinite as well
        names = [name for name, x in self.gradients if suspect and not x.isfinite().all()]
        self.skipped = self.skipped + 1 if names else 0
        self.idle = self.idle + 1 if self.idle >= 0 and self.norm == 0 else -1
        self.count = len(self.gradients)
        if names and not (self.scaled and self.skipped < _MAX_SKIPPED):
            self.wrong.append(f"the gradient of {len(names)} of {len(self.gradients)} parameters: {first_few(names)}")
            if self.scaled:
                self.wrong[-1] += f", in {self.skipped} steps in a row, which were skipped (loss scale)"
        self.gradients, self.norm = [], None


def not_finite_losses(outputs: Mapping[str, Any]) -> list[str]:
    """Which terms are not finite. Mostly the sum alone is read, which has been waited for (see the hook's priority)."""
    if "loss" in outputs and math.isfinite(_number(outputs["loss"])):
        return []
    losses = {name: _number(value) for name, value in outputs.items() if "loss" in name}
    wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    fine = [f"{name} {value:.4g}" for name, value in losses.items() if math.isfinite(value)]
    return [", ".join(wrong) + (f" (beside {', '.join(fine)})" if fine else "")] if wrong else []


def not_finite_weights(weights: Mapping[str, Any]) -> list[str]:
    """Which weights and buffers are not finite."""
    tensors = {name: local_part(x) for name, x in weights.items() if isinstance(x, Tensor) and x.is_floating_point()}
    names = [name for name, x in tensors.items() if not x.isfinite().all()]
    return [f"{len(names)} of {len(tensors)} weights are not finite: {first_few(names)}"] if names else []


def not_finite_images(data_batch: Any) -> list[str]:
    """Paths of images that hold NaN or infinity themselves."""
    inputs = data_batch.get("inputs") if isinstance(data_batch, dict) else None
    if not isinstance(inputs, Iterable):
        return []
    wrong = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and not x.isfinite().all()]
    paths = image_paths(data_batch)
    return [paths[i] if i < len(paths) else f"image {i}" for i in wrong]


class Told(NamedTuple):
    """What one process tells the others of a step.

    Attributes:
        losses: Terms of its own loss that are not finite.
        shared: Gradients and weights that are not, which processes exchange: one's NaN is everybody's.
        odd: What to say of a loss that is odd.
        paths: Of its images.
        images: Those that are not finite as they were loaded.
    """

    losses: list[str]
    shared: list[str]
    odd: str
    paths: list[str]
    images: list[str]


def broken_step(step: int, told: Sequence[Told]) -> str:
    """The message of all processes, of those alone whose own loss is not finite where there are such.

    Args:
        step: From 1.
        told: By each process, in the order of their ranks.
    """
    found = [rank for rank, each in enumerate(told) if each.losses]
    found = found or [rank for rank, each in enumerate(told) if each.shared]
    alike: dict[str, list[int]] = {}
    for rank in found:
        alike.setdefault("; ".join([*told[rank].losses, *told[rank].shared]), []).append(rank)
    return f"step {step} is not finite: " + "; ".join(_told_by(ranks, told, text) for text, ranks in alike.items())


def _told_by(ranks: list[int], told: Sequence[Told], text: str) -> str:
    paths = [path for rank in ranks for path in told[rank].paths]
    images = [path for rank in ranks for path in told[rank].images]
    batch = f"images: {first_few(paths, 64)}" if paths else "images without paths"
    broken = f"; not finite as loaded: {first_few(images)}" if images else ""
    where = f"rank {first_few(map(str, ranks), 8)} of {len(told)}: " if len(told) > 1 else ""
    return f"{where}{text} [{batch}{broken}]"


def due(runner: Runner, hook: CheckpointHook) -> bool:
    """Whether a hook is about to save after this step."""
    if hook.by_epoch:
        return False
    return hook.every_n_train_iters(runner, hook.interval, hook.save_begin) or (
        hook.save_last and hook.is_last_train_iter(runner)
    )


def agreed(state: int) -> int:
    """The worst state of all processes."""
    if dist.get_world_size() == 1:
        return state
    states = torch.tensor(state, device=dist.get_comm_device())
    dist.all_reduce(states, "max")
    return int(states)


def _number(x: Tensor | float) -> float:
    return x.item() if isinstance(x, Tensor) else x
