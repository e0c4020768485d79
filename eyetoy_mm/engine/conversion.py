"""Published checkpoints of NAT, DiNAT and DiNAT_s turned into OpenMMLab files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope

import eyetoy_mm.backbones  # noqa: F401 - registers them; before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.nat_checkpoints import describe, split, to_official, to_openmmlab
from eyetoy_mm.backbones.pretrained import fitting, read_state
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.checkpoint import check_exists, check_state_fits
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.errors import UserError
from eyetoy_mm.state_dicts import State


def convert(
    source: str, target: Path, official: bool = False, config: str | Path | None = None
) -> tuple[int, dict[str, Any]]:
    """Read, check against the backbone that the weights are of, rename, write.

    Args:
        source: The checkpoint.
        target: The file to write.
        official: Write the published names, not OpenMMLab's.
        config: The model that the OpenMMLab names must fit.

    Returns:
        How many tensors there are, and the backbone that they are of.

    Raises:
        UserError: The checkpoint is missing or not all of a backbone or of the config's model, or the target exists.
    """
    check_exists(source)
    if target.exists():
        raise UserError(f"{target} exists already; choose another name or take it away")
    state = read_state(source)
    backbone_state, _ = split(state)
    try:
        backbone_config = describe(backbone_state)
    except CheckpointError as error:
        raise UserError(f"{source}: {error}") from error
    with torch.device("meta"):
        backbone = MODELS.build(backbone_config)
    fitting(backbone, backbone_state, source)
    openmmlab_state = to_openmmlab(state)
    if config is not None:
        check_fits_config(openmmlab_state, config, Path(source).name)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(to_official(state) if official else {"state_dict": openmmlab_state, "meta": {}}, target)
    return len(state), backbone_config


def check_fits_config(state: State, path: str | Path, name: str) -> None:
    """Check that tensors are all that the model of a config has.

    Args:
        state: Tensors with OpenMMLab's names.
        path: The config.
        name: Of the checkpoint, for messages.

    Raises:
        UserError: The config cannot be read, or tensors are missing, too many or of another shape.
    """
    config = load_config(path)
    init_default_scope(config.default_scope)
    check_state_fits(MODELS.build(config.model), state, name)
