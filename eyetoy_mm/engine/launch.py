"""Training and evaluation, with everything checked that can be checked before the first step."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.hooks import PrepareTTAHook
from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists, check_fits
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.hooks import PaintPredictionsHook
from eyetoy_mm.errors import UserError


def train(config: Config, resume: str | None = None, auto_scale_lr: bool = False) -> None:
    """Train.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        resume: The checkpoint to go on from, or ``"auto"`` for the latest one in the work dir.
        auto_scale_lr: Scale the learning rate to the real batch size.

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
    check_exists(config.get("load_from"))
    check_data(config, "train", "val")
    Runner.from_cfg(config).train()


def evaluate(
    config: Config, checkpoint: str, tta: bool = False, show_dir: str | None = None, show_interval: int = 1
) -> None:
    """Evaluate a checkpoint on the test set.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        checkpoint: The weights.
        tta: Augment at test time, as ``tta_model`` and ``tta_pipeline`` of the config say.
        show_dir: Folder for pictures of ground truth and prediction.
        show_interval: Every so many images one is painted.

    Raises:
        UserError: What is missing or does not fit.
        CheckpointError: The checkpoint cannot be loaded safely.
    """
    if show_interval < 1:
        raise UserError(f"--show-interval must be at least 1, got {show_interval}")
    check_exists(checkpoint)
    check_data(config, "test")
    config.load_from = checkpoint
    if tta:
        if "tta_model" not in config or "tta_pipeline" not in config:
            raise UserError(f"{config.filename} has no test-time augmentation: tta_model and tta_pipeline are missing")
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    runner = Runner.from_cfg(config)
    if tta:  # a hook, because the checkpoint has to be loaded before the model is wrapped
        runner.register_hook(PrepareTTAHook(config.tta_model))
    if show_dir:
        score_thr = ((config.get("default_hooks") or {}).get("visualization") or {}).get("score_thr", 0.3)
        runner.register_hook(PaintPredictionsHook(show_dir, show_interval, score_thr))
    check_fits(runner.model, checkpoint)
    runner.test()
