"""Checkpoints checked against the model before they are used."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from eyetoy_mm.backbones.loading import named_as_in, unwrapped
from eyetoy_mm.backbones.pretrained import read_state
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import is_address
from eyetoy_mm.state_dicts import State, compare, migrated, unusable


def check_exists(path: str | None) -> None:
    """Check that a checkpoint is there; addresses are left to the loader.

    Raises:
        UserError: There is no such file.
    """
    if path is not None and not is_address(path) and not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}")


def check_fits(model: nn.Module, path: str) -> None:
    """Check that a checkpoint has exactly the model's weights, so that nothing is loaded in part.

    mmengine loads what fits and logs the rest, which is right to fine-tune and wrong to evaluate. Names may be any that
    :func:`.named_as_in` knows, published ones too, and the file needs no ``meta``.

    Raises:
        UserError: Weights are missing, too many or of another shape; the message names the first of each.
        CheckpointError: The file is not a checkpoint that can be loaded safely.
    """
    check_exists(path)
    check_state_fits(model, named_as_in(unwrapped(model), read_state(path)), path)


def check_state_fits(model: nn.Module, state: State, name: str) -> None:
    """Check that tensors are exactly the model's.

    Args:
        model: A model, wrapped for several processes or not.
        state: Tensors under the model's names, or those of an earlier version.
        name: Of the checkpoint, for the message.

    Raises:
        UserError: Weights are missing, too many or of another shape, or cannot be weights; the message names the first.
    """
    inner = unwrapped(model)
    state, wanted = migrated(state, inner), inner.state_dict()
    difference = compare(state, wanted)
    if difference:
        raise UserError(f"{name} does not fit the model of this config: {difference}. Is it from another config?")
    if bad := unusable(state, wanted):
        raise UserError(f"{name} has {len(bad)} tensors that cannot be weights: {first_few(bad, 8)}")
