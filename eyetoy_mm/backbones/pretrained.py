"""Pretrained weights of a backbone: everything that the file and the backbone have, or an error that names the rest.

Three exceptions, which are logged. A file may have stages and norms that the backbone was built without, because of its
``out_indices``. It may have a classifier's ``head.`` beside the backbone's own names. And one of a classifier, with its
one norm of the last map, starts a backbone for other maps with fresh norms, as in the published recipes of the field.
What :func:`allow_missing` names may differ, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.logging import print_log
from mmengine.model import PretrainedInit, update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.errors import first_few
from eyetoy_mm.state_dicts import Difference, State, behind, compare, constant_weights, unusable, unwrap, version

if TYPE_CHECKING:
    from eyetoy_mm.backbones.staged import InitCfg, StagedBackbone

_log = logging.getLogger(__name__)

_ALLOWED: ContextVar[tuple[str, ...] | None] = ContextVar("_ALLOWED", default=None)


@contextmanager
def allow_missing(names: Sequence[str]) -> Iterator[None]:
    """Within: every backbone, of whatever package, loads whole from every file that it is given, but for these names.

    Args:
        names: Of tensors or modules of the model, ``"backbone.norm3"``; ``*`` stands for any characters.
    """
    token = _ALLOWED.set(tuple(names))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def every_backbone_is_checked() -> bool:
    """Whether this runs within :func:`allow_missing`."""
    return _ALLOWED.get() is not None


def is_allowed(name: str) -> bool:
    """Whether :func:`allow_missing` names this tensor of a model, or a module that it is in."""
    return any(
        name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
        for pattern in _ALLOWED.get() or ()
    )


def read_state(filename: str | Path, map_location: str = "cpu") -> State:
    """Named tensors of a checkpoint, from a file or an address.

    Raises:
        CheckpointError: The file cannot be loaded safely, or is not a dict of named tensors.
    """
    loaded = CheckpointLoader.load_checkpoint(str(filename), map_location, logger="silent")
    return unwrap(loaded, str(filename))


def fitting(backbone: StagedBackbone, own: State, filename: str) -> State:
    """What a backbone takes from a file; it must be all that either has, but for the exceptions above.

    Args:
        backbone: The backbone.
        own: Its tensors in the file, under its own names.
        filename: Of the file, for messages.

    Raises:
        CheckpointError: Tensors are missing, too many or of another shape, or their values cannot be weights; the
            message names them.
    """
    wanted = backbone.state_dict()
    left_out = tuple(f"{name}." for name in backbone.modules_left_out())
    unused = [key for key in own if key.startswith(left_out) or (key.startswith("head.") and key not in wanted)]
    fresh: list[str] = []
    is_of_classifier = _norms(own) == [backbone.num_stages - 1]
    if is_of_classifier and list(backbone.out_indices) != _norms(own):
        unused += [key for key in own if key in wanted and key.startswith("norm")]
        fresh = [key for key in wanted if key.startswith("norm")]
    unused += [key for key, x in own.items() if key not in unused and _may_differ(key, x, wanted)]
    fresh += [key for key in wanted if key not in fresh and is_allowed(f"backbone.{key}")]
    taken = {key: x for key, x in own.items() if key not in unused}
    difference = compare(taken, {key: x for key, x in wanted.items() if key in taken or key not in fresh})
    if difference:
        raise CheckpointError(
            f"{filename} does not fit this {type(backbone).__name__}, and nothing was loaded: {difference}. "
            f"Is it of another arch or of other numbers, or behind another prefix?{_how_to_allow(difference)}"
        )
    if bad := unusable(taken, wanted):
        raise CheckpointError(
            f"{filename} has {len(bad)} tensors that cannot be weights, and nothing was loaded: {first_few(bad, 8)}"
        )
    check_vary(taken, [key for key in taken if key in wanted], filename)
    for what, keys in (
        ("not used, for the backbone has no such output, stage or head", unused),
        ("left as they were", [key for key in fresh if key not in taken]),
    ):
        if keys:
            print_log(f"{filename}: {what}: {', '.join(keys)}", logger="current")
    return taken


def check_vary(state: State, names: Collection[str], filename: str) -> None:
    """Check that weights are more than one number throughout, and log which of them are not.

    Args:
        state: From a file.
        names: Those of a backbone, or of a model.
        filename: Of the file, for messages.

    Raises:
        CheckpointError: None of them is more.
    """
    same, total = constant_weights(state, names)
    if not same:
        return
    shown = f"{same[0]} is {float(state[same[0]].flatten()[0]):.4g} everywhere"
    if len(same) == total:
        raise CheckpointError(
            f"{filename} has no weights: each of its {total} matrices and kernels is one number, such as {shown}. "
            "Was it written whole, and of a model with weights? Get it again, or save it again"
        )
    _log.warning(
        "%s: %d of %d matrices and kernels are one number throughout: %s; %s. Unless they were left out of training, "
        "the file is not whole",
        *(filename, len(same), total, first_few(same), shown),
    )


class StrictPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, where what does not fit is an error and not a log line."""

    def __call__(self, module: StagedBackbone) -> None:
        """Load the checkpoint into a backbone.

        Raises:
            CheckpointError: It does not fit; see :func:`fitting`.
        """
        print_log(f"load model from: {self.checkpoint}", logger="current")
        state = read_state(self.checkpoint, self.map_location)
        prefix = self.prefix
        if prefix is None:
            prefix = behind(state, module.state_dict(), str(self.checkpoint)) or None
        own, rest = module.split(state, prefix)
        if not own:
            raise CheckpointError(f"{self.checkpoint}: no name starts with {self.prefix!r}, but {first_few(rest, 8)}")
        if rest:
            print_log(f"{self.checkpoint}: not of the backbone: {', '.join(rest)}", logger="current")
        taken = fitting(module, module.migrate(own, version(own)), self.checkpoint)
        state = module.state_dict()
        state.update(taken)
        module.load_state_dict(state)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())


def strict(init_cfg: InitCfg) -> list[dict[str, Any]]:
    """``init_cfg`` with :class:`StrictPretrainedInit` for ``Pretrained``, and that last, where mmengine has it too.

    Raises:
        ValueError: It is not a dict with a ``type``, nor a list of these, or there is no checkpoint to load.
    """
    configs = list(init_cfg) if isinstance(init_cfg, list | tuple) else [] if init_cfg is None else [init_cfg]
    pretrained = ("Pretrained", PretrainedInit, StrictPretrainedInit)
    for config in configs:
        if not isinstance(config, dict) or "type" not in config:
            raise ValueError(f"init_cfg must be as dict(type='Pretrained', checkpoint='...'), got {config!r}")
        if config["type"] in pretrained and not isinstance(config.get("checkpoint"), str | Path):
            raise ValueError(f"init_cfg of type Pretrained needs a checkpoint, a file or an address, got {config!r}")
        if config["type"] in pretrained and not isinstance(config.get("prefix"), str | None):
            raise ValueError(f"prefix of init_cfg must be the text before the backbone's names, got {config!r}")
    others = [config for config in configs if config["type"] not in pretrained]
    return others + [dict(config, type=StrictPretrainedInit) for config in configs if config["type"] in pretrained]


def _how_to_allow(difference: Difference) -> str:
    """What a training says of a config that may name what is missing."""
    if not every_backbone_is_checked():
        return ""
    names = [*difference.missing, *difference.unexpected, *(text.split(" ")[0] for text in difference.reshaped)]
    return (
        " What may stay as it was initialised has to be named in the config: "
        f"load_from_allow_missing = ['backbone.{names[0].rpartition('.')[0] or names[0]}', ...]"
    )


def _may_differ(key: str, x: Tensor, wanted: State) -> bool:
    """Whether a tensor that the backbone has not, or has with another shape, is allowed by name."""
    return is_allowed(f"backbone.{key}") and (key not in wanted or wanted[key].shape != x.shape)


def _norms(keys: Iterable[str]) -> list[int]:
    return sorted({int(found[1]) for key in keys if (found := re.match(r"norm(\d+)\.", key))})
