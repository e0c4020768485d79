"""Training and evaluation, with everything checked that can be checked before the first step."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import PrepareTTAHook

from eyetoy_mm.backbones.loading import unwrapped
from eyetoy_mm.backbones.pretrained import allow_missing
from eyetoy_mm.engine import evaluation_report
from eyetoy_mm.engine.checkpoint import check_exists, check_fits, check_last_checkpoint
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.distributed import joined, restarted
from eyetoy_mm.engine.engines import shards_model
from eyetoy_mm.engine.evaluation_report import BoxReport, class_table, recorded_comparisons, write_report
from eyetoy_mm.engine.exact_resume import go_on_exactly
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import (
    CheckInitialisedHook,
    CheckOutputsHook,
    CompareClassesHook,
    CompareResumedHook,
    DataPicturesHook,
    DescribeRunHook,
    EvaluateSavedBuffersHook,
    EvaluationPicturesHook,
    KeepPredictionsHook,
    LiveProgressHook,
    PaintPredictionsHook,
    PrepareWeightsHook,
    ProgressHook,
    RehearseEvaluationHook,
    ResultsPictureHook,
    SaveOnSignalHook,
    SeedIterationsHook,
    WorstImagesHook,
)
from eyetoy_mm.engine.loop_checks import check_loops, check_test_loop
from eyetoy_mm.engine.photo_rules import guard_images
from eyetoy_mm.engine.resume import choose_start, saved_before_restart
from eyetoy_mm.engine.runner import CheckedRunner, ShardedRunner
from eyetoy_mm.engine.test_time import augment, check_can_be_merged, merging_model
from eyetoy_mm.engine.tracking import add_trackers
from eyetoy_mm.engine.work_dir import explained_disk_errors, occupied
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import check_folder
from eyetoy_mm.registry import type_name
from eyetoy_mm.tables import for_terminal

DATA_HOOKS = {"mmseg": "CheckSegLabelsHook", "mmdet": "CheckDetDataHook", "mmpretrain": "CheckClsLabelsHook"}


def train(config: Config, resume: str | None = None, auto_scale_lr: bool = False, force: bool = False) -> None:
    """Train.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        resume: The checkpoint to go on from, or ``"auto"`` for the latest one in the work dir.
        auto_scale_lr: Scale the learning rate to the real batch size.
        force: Run in a work dir that another run is using.

    A run that torchrun starts again goes on from what it saved before, whatever ``resume`` says.

    Raises:
        UserError: What is missing or does not fit.
    """
    if auto_scale_lr:
        if not (config.get("auto_scale_lr") or {}).get("base_batch_size"):
            raise UserError(f"{config.filename} has no auto_scale_lr=dict(base_batch_size=...) to scale from")
        config.auto_scale_lr.enable = True
    check_last_checkpoint(config, "auto" if restarted() else resume)
    add_trackers(config)
    check_config(config, "train", "val")
    check_exists(config.get("load_from"))
    check_exists(resume if resume != "auto" else None)
    may_stay = names_that_may_stay(config)
    check_data(config, "train", "val")
    guard_images(config)
    add_guards(config)
    add_switched_hooks(config)
    go_on_exactly(config)
    with joined(config):
        _train(config, resume, may_stay, force)


def _train(config: Config, resume: str | None, may_stay: list[str], force: bool) -> None:
    """The run itself, which has let go of its model when processes part."""
    with occupied(config.work_dir, force), explained_errors(config) as run:
        start = choose_start(config, saved_before_restart(config.work_dir) or resume)
        kind = ShardedRunner if shards_model(config) else CheckedRunner
        runner = run.runner = kind.from_cfg(config)
        runner.logger.info(start)
        with closing(LiveProgressHook()) as live, closing(SaveOnSignalHook()) as saves:
            for hook in (
                saves,
                SeedIterationsHook(),
                EvaluateSavedBuffersHook(),
                ProgressHook(),
                live,
                DataPicturesHook(),
                EvaluationPicturesHook(),
                ResultsPictureHook(),
                DescribeRunHook(),
                CheckInitialisedHook(),
                CheckOutputsHook(),
                RehearseEvaluationHook(),
                PrepareWeightsHook(),
                CompareResumedHook(config.load_from if config.get("resume") else None),
                CompareClassesHook("train"),
            ):
                runner.register_hook(hook)
            check_loops(runner)
            with explained_disk_errors(config.work_dir), allow_missing(may_stay):
                runner.train()


def add_guards(config: Config) -> None:
    """Add the hooks that every run needs, where a config has none of their type: users' own configs have none.

    One looks at losses, gradients and weights, one at the data of the toolbox.
    """
    hooks = config.get("custom_hooks") or ()
    present = {type_name(hook) or type(hook).__name__ for hook in hooks}  # of a dict, or built
    wanted = (DATA_HOOKS.get(config.get("default_scope")), "StopOnNonFiniteHook")
    missing = [dict(type=f"eyetoy_mm.{name}") for name in wanted if name and name not in present]
    config.custom_hooks = [*hooks, *missing]


def add_switched_hooks(config: Config) -> None:
    """Add the hooks that are switched on by keys of a config, and put mmengine's way of the first aside.

    ``activation_checkpointing`` is True, or names of modules or classes; ``split_invariant`` is True.
    """
    blocks = config.pop("activation_checkpointing", None)
    hooks = []
    if blocks:
        names = None if blocks is True else [blocks] if isinstance(blocks, str) else list(blocks)
        hooks.append(dict(type="eyetoy_mm.RecomputeBlocksHook", blocks=names))
    if config.pop("split_invariant", False):
        hooks.append(dict(type="eyetoy_mm.SplitInvariantHook"))
    config.custom_hooks = [*(config.get("custom_hooks") or ()), *hooks]


@dataclass(frozen=True)
class Kept:
    """What an evaluation leaves beside its metrics, each a path or None for none.

    Args:
        show_dir: Folder for pictures of ground truth and prediction.
        show_interval: Every so many images one is painted.
        out: Folder for predictions as files.
        report: Folder for what is counted of each class: a table, the confusion matrix, the calibration.
    """

    show_dir: str | None = None
    show_interval: int = 1
    out: str | None = None
    report: str | None = None

    def check(self) -> None:
        """Check that it can be written.

        Raises:
            UserError: A path is of something else.
        """
        if self.show_interval < 1:
            raise UserError(f"--show-interval must be at least 1, got {self.show_interval}")
        for option, folder in (("--show-dir", self.show_dir), ("--out", self.out), ("--report", self.report)):
            if folder:
                check_folder(option, folder)


def evaluate(
    config: Config, checkpoint: str, tta: bool = False, kept: Kept | None = None, in_numbers: bool = False
) -> dict[str, Any] | None:
    """Evaluate a checkpoint on the test set.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        checkpoint: The weights.
        tta: Augment at test time, as ``tta_model`` and ``tta_pipeline`` of the config say.
        kept: What is left beside the metrics; nothing when None.
        in_numbers: Count by class, too.

    Returns:
        In the main process, if ``in_numbers``: all that was counted, as
        :func:`~eyetoy_mm.engine.evaluation_report.in_numbers` has it; else None.

    Raises:
        UserError: What is missing or does not fit.
        CheckpointError: The checkpoint cannot be loaded safely.
    """
    kept = kept or Kept()
    kept.check()
    if kept.report or in_numbers:
        evaluation_report.check_can_report(config)
    if tta:
        augment(config)
    check_config(config, "test")
    check_exists(checkpoint)
    check_data(config, "test")
    guard_images(config)
    add_guards(config)
    config.load_from = checkpoint
    with joined(config), explained_errors(config) as run, recorded_comparisons() as compared:
        runner = run.runner = CheckedRunner.from_cfg(config)
        if tta:  # a hook, because the checkpoint has to be loaded before the model is wrapped
            check_can_be_merged(unwrapped(runner.model))
            runner.register_hook(PrepareTTAHook(merging_model(config)))
        runner.register_hook(PrepareWeightsHook())
        runner.register_hook(CompareClassesHook("test"))
        runner.register_hook(RehearseEvaluationHook())
        if kept.show_dir:
            score_thr = ((config.get("default_hooks") or {}).get("visualization") or {}).get("score_thr", 0.3)
            runner.register_hook(PaintPredictionsHook(kept.show_dir, kept.show_interval, score_thr))
        predictions = KeepPredictionsHook(kept.out, bool(kept.report) or in_numbers, calibrated=not tta)
        runner.register_hook(predictions)
        worst = WorstImagesHook(kept.report) if kept.report else None
        if worst is not None:
            runner.register_hook(worst)
        check_fits(runner.model, checkpoint)
        check_test_loop(runner)
        metrics = runner.test()
        is_main = is_main_process()
    if not is_main:
        return None
    if kept.out:
        print(f"predictions -> {kept.out}")
    report = predictions.report
    if isinstance(report, BoxReport):
        report.take(compared)
    if report is not None and kept.report:
        print(for_terminal(class_table(report)))
        for path in write_report(report, Path(kept.report)):
            print(f"-> {path}")
        if worst is not None and worst.written:
            print(f"-> {Path(kept.report) / 'worst.png'}")
    return evaluation_report.in_numbers(report, metrics) if report is not None and in_numbers else None


def names_that_may_stay(config: Config) -> list[str]:
    """``load_from_allow_missing`` of a config: tensors or modules that no checkpoint has to have; ``*`` is any text.

    Raises:
        UserError: It is not a list of names.
    """
    names = config.get("load_from_allow_missing") or []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            "load_from_allow_missing must be a list of names of tensors or modules of the model, such as "
            f"['backbone.norm3'], got {names!r}"
        )
    return list(names)
