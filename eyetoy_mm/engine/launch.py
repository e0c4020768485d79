"""Training and evaluation, with everything checked that can be checked before the first step."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.hooks import Hook, PrepareTTAHook
from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists, check_fits
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.errors import UserError

DATA_HOOKS = {
    "mmseg": ("CheckSegLabelsHook",),
    "mmdet": ("CheckDetDataHook",),
    "mmpretrain": ("CheckClsLabelsHook",),
}


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
    add_guards(config)
    Runner.from_cfg(config).train()


def add_guards(config: Config) -> None:
    """Add the hooks that every run needs, where a config has none of their type: users' own configs have none.

    One looks at losses, gradients and weights, one at the data of the toolbox.
    """
    present = {_name(hook) for hook in config.get("custom_hooks") or ()}
    wanted = [*DATA_HOOKS.get(config.get("default_scope"), ()), "StopOnNonFiniteHook"]
    missing = [dict(type=f"eyetoy_mm.{name}") for name in wanted if name not in present]
    config.custom_hooks = [*(config.get("custom_hooks") or ()), *missing]


def _name(hook: Hook | dict) -> str:
    """Name of the class of a hook, or of a config of one."""
    kind = hook["type"] if isinstance(hook, dict) else type(hook)
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


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
    check_exists(checkpoint)
    check_data(config, "test")
    add_guards(config)
    config.load_from = checkpoint
    if show_dir:
        config.default_hooks.visualization.draw = True
        config.visualizer.save_dir = show_dir
    if tta:
        if "tta_model" not in config or "tta_pipeline" not in config:
            raise UserError(f"{config.filename} has no test-time augmentation: tta_model and tta_pipeline are missing")
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    runner = Runner.from_cfg(config)
    if tta:  # a hook, because the checkpoint has to be loaded before the model is wrapped
        runner.register_hook(PrepareTTAHook(config.tta_model))
    check_fits(runner.model, checkpoint)
    runner.test()
