"""Checkpoints checked against the model before they are used."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config
from torch import nn

from eyetoy_mm.backbones.loading import named_as_in, unwrapped
from eyetoy_mm.backbones.pretrained import check_vary, read_state
from eyetoy_mm.engine.sharded_checkpoints import is_directory_of_shards
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import is_address
from eyetoy_mm.state_dicts import State, compare, migrated, unusable
from eyetoy_mm.zoo import SUFFIXES, advice, config_of, located

WHICH = "`eyetoy models --weights` lists the models that have some"
_LONGEST_PATH = 4096  # characters


def check_exists(path: str | None) -> None:
    """Check that a checkpoint is there, a file or a directory of shards; addresses are left to the loader.

    Args:
        path: Its path, or the name of a model of the zoo that has weights; None is no checkpoint, and well.

    Raises:
        UserError: There is none.
    """
    path = None if path is None else located(path)
    if path is None or is_address(path) or Path(path).is_file() or is_directory_of_shards(path):
        return
    if config_of(path) is not None:
        raise UserError(f"there are no weights of {path} in the package, nor a file of that name; {WHICH}")
    raise UserError(f"there is no checkpoint {path}{advice(_stem(path), with_weights=True)}")


def _stem(path: str) -> str:
    """Its last part without the suffix of weights: names have dots, as in ``eyetoy-2.5m``."""
    name = Path(path).name
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def check_last_checkpoint(config: Config, resume: str | None = None) -> None:
    """Check that the checkpoint from which a run would go on by itself is one of its own.

    The file ``last_checkpoint`` in the work dir names it, and may name any file of the machine.

    Args:
        config: The run's.
        resume: ``"auto"`` where it is asked to go on; None for what the config says.

    Raises:
        UserError: It names one outside of the work dir and of the ``out_dir`` of the checkpoint hook.
    """
    note = Path(config.work_dir, "last_checkpoint")
    by_itself = resume == "auto" or (resume is None and config.get("resume") and not config.get("load_from"))
    if not by_itself or not note.is_file():
        return
    with open(note, encoding="utf-8", errors="replace") as file:
        text = file.read(_LONGEST_PATH).strip()
    named = Path(config.work_dir, text)  # relative to the work dir, or whole
    hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
    folders = [config.work_dir, *([hook["out_dir"]] if hook.get("out_dir") else [])]
    if text and named.exists() and not any(_is_inside(named, folder) for folder in folders):
        raise UserError(
            f"{note} says to resume from {text}, which is not in {' or '.join(map(str, folders))}: the weights of "
            f"something else. If they are meant, say so: --resume {named}; if not, remove {note}"
        )


def _is_inside(path: Path, folder: str) -> bool:
    """Whether a file is below a folder, by its name or by where links lead: links in a work dir are the user's own."""
    return any(Path(whole(path)).is_relative_to(whole(folder)) for whole in (os.path.abspath, os.path.realpath))


def check_fits(model: nn.Module, path: str) -> None:
    """Check that a checkpoint has exactly the model's weights, so that nothing is loaded in part.

    mmengine loads what fits and logs the rest, which is right to fine-tune and wrong to evaluate. Names may be any that
    :func:`.named_as_in` knows, published ones too, and the file needs no ``meta``.

    Raises:
        UserError: Weights are missing, too many or of another shape; the message names the first of each.
        CheckpointError: The file is not a checkpoint that can be loaded safely.
    """
    check_exists(path)
    check_state_fits(model, named_as_in(unwrapped(model), read_state(path), path), path)


def check_state_fits(model: nn.Module, state: State, name: str) -> None:
    """Check that tensors are exactly the model's.

    Args:
        model: A model, wrapped for several processes or not.
        state: Tensors under the model's names, or those of an earlier version.
        name: Of the checkpoint, for the message.

    Raises:
        UserError: Weights are missing, too many or of another shape, or cannot be weights; the message names the first.
        CheckpointError: All of them are one number throughout.
    """
    inner = unwrapped(model)
    state, wanted = migrated(state, inner), inner.state_dict()
    difference = compare(state, wanted)
    if difference:
        raise UserError(f"{name} does not fit the model of this config: {difference}. Is it from another config?")
    if bad := unusable(state, wanted):
        raise UserError(f"{name} has {len(bad)} tensors that cannot be weights: {first_few(bad, 8)}")
    check_vary(state, wanted, name)
