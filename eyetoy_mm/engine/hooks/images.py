"""Images and masks checked as they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from eyetoy_mm.datasets.corner_boxes import instance_findings
from eyetoy_mm.datasets.findings import Finding, refuse_fatal
from eyetoy_mm.datasets.guarded_loading import guard, look_at_some, plain_datasets
from eyetoy_mm.datasets.image_files import check_rule
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.registry import HOOKS

_LOOK_AT = 100  # images of a data set whose heads are read before a run: milliseconds on a disk


@HOOKS.register_module()
class CheckImagesHook(Hook):
    """Name files that cannot be loaded, and images that are not what was annotated, or are turned otherwise.

    Args:
        orientation: ``"exif"`` or ``"stored"``: the photos of which annotations are; None if nothing says it, which is
            refused where it matters.
        skip_unreadable: The share of images that may be left out of training because they cannot be loaded; True is
            0.1. Those are counted and told at the end. Evaluation leaves out none.

    Raises:
        UserError: One of them is no such thing.
    """

    priority = "LOW"  # after hooks that change pipelines

    def __init__(self, orientation: str | None = None, skip_unreadable: bool | float = False) -> None:
        check_rule(orientation)
        self.orientation = orientation
        self.skip = share_to_skip(skip_unreadable)

    def check(self, dataset: Any) -> None:
        """Look at some images of a dataset that was built, and guard all: before workers have a copy of it.

        Raises:
            UserError: Some are not what was annotated, or nothing says how they are to be turned.
        """
        plain = list(plain_datasets(dataset))
        refuse_fatal(finding for part in plain for finding in self._look_at(part))
        total = sum(map(len, plain))
        unopened = total - sum(min(len(part), _LOOK_AT) for part in plain)
        if unopened:
            print_log(
                f"{unopened} of {total} images were not opened; each is checked as it is loaded. `eyetoy check CONFIG` "
                "opens every one",
                "current",
            )
        guard(dataset, self.orientation, self.skip)

    def _look_at(self, dataset: Any) -> Iterator[Finding]:
        if hasattr(dataset, "get_data_info"):  # else of no toolbox
            yield from look_at_some(dataset, self.orientation, _LOOK_AT)
            yield from instance_findings(dataset)

    def before_train(self, runner: Runner) -> None:
        """Guard the validation set, before an evaluation is rehearsed."""
        if runner.val_loop is not None:
            self.before_val(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Guard the training set, to which another hook may have given another pipeline."""
        guard(runner.train_loop.dataloader.dataset, self.orientation, self.skip)

    def before_val(self, runner: Runner) -> None:
        """Guard the validation set."""
        guard(runner.val_loop.dataloader.dataset, self.orientation, evaluated=True)

    def before_test(self, runner: Runner) -> None:
        """Guard the test set."""
        guard(runner.test_loop.dataloader.dataset, self.orientation, evaluated=True)

    def after_train(self, runner: Runner) -> None:
        """Tell which images were left out."""
        for dataset in plain_datasets(runner.train_loop.dataloader.dataset):
            log = getattr(dataset, "image_log", None)
            if log is None or not log.skip:
                continue
            dist.all_reduce(log.states, op="max")  # each process has seen its part
            left_out = log.unreadable()
            if left_out:
                paths = [str(dataset.get_data_info(index).get("img_path")) for index in left_out]
                print_log(
                    f"{len(paths)} of {len(dataset)} images could not be loaded and were left out of training, others "
                    f"in their place: {first_few(paths)}",
                    "current",
                    logging.WARNING,
                )


def share_to_skip(setting: object) -> float:
    """The largest share of images that may be left out of training, from ``skip_unreadable_images`` of a config.

    Raises:
        UserError: It is neither True, False or None, nor a share from 0 to below 1.
    """
    if setting is None or isinstance(setting, bool):
        return 0.1 if setting else 0.0
    if isinstance(setting, int | float) and 0 <= setting < 1:
        return float(setting)
    raise UserError(
        f"skip_unreadable_images={setting!r} should be True, False, or the largest share of images to leave out of "
        "training, as 0.01"
    )
