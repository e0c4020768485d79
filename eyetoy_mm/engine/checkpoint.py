"""Checkpoints checked against the model before they are used."""

from __future__ import annotations

from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address


def check_exists(path: str | None) -> None:
    """Check that a checkpoint is there; addresses are left to the loader.

    Raises:
        UserError: There is no such file.
    """
    if path is not None and not is_address(path) and not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}")


def check_fits(model: nn.Module, path: str) -> None:
    """Check that a checkpoint has exactly the model's weights, so that nothing is loaded in part.

    mmengine loads what fits and logs the rest, which is right to fine-tune and wrong to evaluate.

    Raises:
        UserError: Weights are missing, too many or of another shape; the message names the first of each.
        CheckpointError: The file is not a checkpoint that can be loaded safely.
    """
    check_exists(path)
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location="cpu")
    found = checkpoint.get("state_dict", checkpoint)
    inner: nn.Module = model.get_submodule("module") if is_model_wrapper(model) else model
    wanted = inner.state_dict()
    found = {key.removeprefix("module."): value for key, value in found.items()}
    problems = {
        "missing": [key for key in wanted if key not in found],
        "not in the model": [key for key in found if key not in wanted],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} for {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in found and getattr(found[key], "shape", None) != value.shape
        ],
    }
    if any(problems.values()):
        lines = "; ".join(
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in problems.items()
            if keys
        )
        raise UserError(f"{path} does not fit the model of this config: {lines}. Is it from another config?")
