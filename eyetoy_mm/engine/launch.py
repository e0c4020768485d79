"""Training and evaluation, with everything checked that can be checked before the first step."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.hooks import PrepareTTAHook
from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists, check_fits
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import SaveOnSignalHook
from eyetoy_mm.engine.loop_checks import check_loops
from eyetoy_mm.engine.work_dir import explained_disk_errors, occupied
from eyetoy_mm.errors import UserError


def train(config: Config, resume: str | None = None, auto_scale_lr: bool = False, force: bool = False) -> None:
    """Train.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        resume: The checkpoint to go on from, or ``"auto"`` for the latest one in the work dir.
        auto_scale_lr: Scale the learning rate to the real batch size.
        force: Run in a work dir that another run is using.

    Raises:
        UserError: What is missing or does not fit.
    """
    if auto_scale_lr:
        if "auto_scale_lr" not in config:
            raise UserError(f"{config.filename} has no auto_scale_lr=dict(base_batch_size=...) to scale from")
        config.auto_scale_lr.enable = True
    if resume is not None:
        config.resume = True
        config.load_from = None if resume == "auto" else resume
    check_config(config, "train", "val")
    check_exists(config.get("load_from"))
    check_data(config, "train", "val")
    with joined(config), occupied(config.work_dir, force), explained_errors(config) as run:
        runner = run.runner = Runner.from_cfg(config)
        runner.register_hook(SaveOnSignalHook())
        check_loops(runner)
        with explained_disk_errors(config.work_dir):
            runner.train()


def evaluate(config: Config, checkpoint: str, tta: bool = False, show_dir: str | None = None) -> None:
    """Evaluate a checkpoint on the test set.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        checkpoint: The weights.
        tta: Augment at test time, as ``tta_model`` and ``tta_pipeline`` of the config say.
        show_dir: Folder for pictures of ground truth and prediction.

    Raises:
        UserError: What is missing or does not fit.
        CheckpointError: The checkpoint cannot be loaded safely.
    """
    check_config(config, "test")
    check_exists(checkpoint)
    check_data(config, "test")
    config.load_from = checkpoint
    if show_dir:
        config.default_hooks.visualization.draw = True
        config.visualizer.save_dir = show_dir
    if tta:
        if "tta_model" not in config or "tta_pipeline" not in config:
            raise UserError(f"{config.filename} has no test-time augmentation: tta_model and tta_pipeline are missing")
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    with joined(config), explained_errors(config) as run:
        runner = run.runner = Runner.from_cfg(config)
        if tta:  # a hook, because the checkpoint has to be loaded before the model is wrapped
            runner.register_hook(PrepareTTAHook(config.tta_model))
        check_fits(runner.model, checkpoint)
        runner.test()
