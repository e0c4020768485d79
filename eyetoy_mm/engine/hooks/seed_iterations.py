"""Random numbers that belong to an iteration, not to the history of a process."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.registry import HOOKS


def seed_all(*numbers: int) -> None:
    """Seed all generators of this process with one seed made of several numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@HOOKS.register_module()
class SeedIterationsHook(Hook):
    """Seed each iteration, and each evaluation, by the run's seed, the process's number and the iteration's.

    Dropout, drop path and mixing then draw the same numbers whether or not the run was interrupted, and whatever else
    drew numbers in between; and each process has a stream of its own. mmengine seeds all processes alike, which drops
    the same units on each, and saves no state.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed all generators."""
        seed_all(runner.seed, dist.get_rank(), runner.iter)

    def before_val(self, runner: Runner) -> None:
        """Seed all generators."""
        seed_all(runner.seed, dist.get_rank(), runner.iter)
