"""Published checkpoints of NAT, DiNAT and DiNAT_s: their names, and loading that leaves nothing out in silence.

A published file is a bare dict of tensors, of one of three kinds: a classifier, with one norm, ``norm.``, and
``head.``; a backbone for maps, with ``norm0.`` to ``norm3.``; a whole detector or segmentor, with that behind
``backbone.`` and necks and heads beside it. The stages of DiNAT_s are ``layers.``, those of the others ``levels.``.

Here stages are always ``levels.``, and a classifier's norm is that of its last stage, ``norm3.``. In OpenMMLab's files
the backbone stands behind ``backbone.``, and the classifier's head is ``head.fc.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.layers.checks import first_few

State = dict[str, Tensor]

# --- Names ------------------------------------------------------------------------------------------------------------


def read_state(filename: str, map_location: str = "cpu") -> State:
    """Tensors of a checkpoint file, without what trainers wrap around them.

    Raises:
        CheckpointError: The file cannot be loaded safely, or is not a dict of named tensors.
    """
    found = CheckpointLoader.load_checkpoint(filename, map_location=map_location)
    for wrapping in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapping), Mapping):
            found = found[wrapping]
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{filename}: not a dict of named tensors but {type(found).__name__}")
    others = [str(key) for key, value in found.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{filename}: {first_few(others, 8)} should be tensors with a name, and are not")
    return {key.removeprefix("module."): value for key, value in found.items()}


def split(state: Mapping[str, Tensor], prefix: str | None = None) -> tuple[State, State]:
    """The backbone's tensors under the names that they have here, and the rest under OpenMMLab's.

    Args:
        state: A published file of any kind, or one of OpenMMLab.
        prefix: What stands before the backbone's names; None takes ``"backbone."`` where there is such a name.
    """
    if prefix is None:
        prefix = "backbone." if any(key.startswith("backbone.") for key in state) else ""
    elif prefix and not prefix.endswith("."):
        prefix += "."
    own = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    rest = {key: x for key, x in state.items() if not key.startswith(prefix)}
    own = {re.sub(r"^layers\.", "levels.", key): x for key, x in own.items()}
    rest |= {f"head.fc.{key.removeprefix('head.')}": own.pop(key) for key in list(own) if key.startswith("head.")}
    last = _last_stage(own)
    return {re.sub(r"^norm\.", f"norm{last}.", key): x for key, x in own.items()}, rest


def to_openmmlab(state: Mapping[str, Tensor]) -> State:
    """Names of an OpenMMLab model with our backbone, for a published file of any kind."""
    own, rest = split(state)
    return {f"backbone.{key}": x for key, x in own.items()} | rest


def to_official(state: Mapping[str, Tensor]) -> State:
    """Published names, of the kind that the file is: the inverse of :func:`to_openmmlab`."""
    own, rest = split(state)
    whole = not all(key.startswith("head.fc.") for key in rest)
    if _is_of_classifier(own) and not whole:
        own = {re.sub(r"^norm\d+\.", "norm.", key): x for key, x in own.items()}
    if "patch_embed.proj.weight" in own:
        own = {re.sub(r"^levels\.", "layers.", key): x for key, x in own.items()}
    if whole:
        return {f"backbone.{key}": x for key, x in own.items()} | rest
    return own | {key.replace("head.fc.", "head."): x for key, x in rest.items()}


def describe(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the backbone that the tensors are of, as far as these tell: not padding, nor dilations.

    Args:
        own: The first of :func:`split`.

    Raises:
        CheckpointError: A tensor is missing that would tell them.
    """
    try:
        depths = [1 + _largest(rf"levels\.{stage}\.blocks\.(\d+)\.", own) for stage in range(1 + _last_stage(own))]
        tables = [own[f"levels.{stage}.blocks.0.attn.rpb"] for stage in range(len(depths))]
        hidden, channels = own["levels.0.blocks.0.mlp.fc1.weight"].shape
        swins = "patch_embed.proj.weight" in own
        return dict(
            type="eyetoy_mm.DiNAT_s" if swins else "eyetoy_mm.NAT",
            arch=None,
            embed_dims=channels,
            depths=depths,
            num_heads=[table.shape[0] for table in tables],
            kernel_size=(tables[0].shape[-1] + 1) // 2,
            mlp_ratio=hidden // channels,
            layer_scale=1e-5 if "levels.0.blocks.0.gamma1" in own else 0,  # whatever it was, it is learned
            in_channels=own["patch_embed.proj.weight" if swins else "patch_embed.proj.0.weight"].shape[1],
            out_indices=_norms(own) or [len(depths) - 1],
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"this is not a checkpoint of NAT, DiNAT or DiNAT_s: it has no {error}") from error


# --- Loading ----------------------------------------------------------------------------------------------------------


def fitting(backbone: BaseModule, own: State, filename: str) -> State:
    """What a backbone takes from a file; it must be everything that either has, with two exceptions, which are logged.

    A file may have stages, norms and a head that the backbone was built without. And one of a classifier, with its one
    norm of the last map, starts a backbone for several maps with fresh norms, as in the published recipes.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s.
        own: The first of :func:`split`.
        filename: Of the file, for messages.

    Raises:
        CheckpointError: Tensors are missing, too many or of another shape; the message names them.
    """
    wanted = backbone.state_dict()
    outputs = [int(stage) for stage in backbone.out_indices]
    unused = [key for key in own if key not in wanted and _is_left_out(key, backbone)]
    fresh: list[str] = []
    if _is_of_classifier(own) and outputs != _norms(own):
        unused += [key for key in own if key in wanted and key.startswith("norm")]
        fresh = [key for key in wanted if key.startswith("norm")]
    taken = {key: x for key, x in own.items() if key not in unused}
    problems = {
        "missing": [key for key in wanted if key not in taken and key not in fresh],
        "not in the model": [key for key in taken if key not in wanted],
        "of another shape": [
            f"{key} {tuple(x.shape)} for {tuple(wanted[key].shape)}"
            for key, x in taken.items()
            if key in wanted and x.shape != wanted[key].shape
        ],
    }
    if any(problems.values()):
        lines = (f"{len(keys)} {what} ({first_few(keys, 8)})" for what, keys in problems.items() if keys)
        raise CheckpointError(
            f"{filename} does not fit this {type(backbone).__name__}, and nothing was loaded: {'; '.join(lines)}. "
            "Is it of another size, kernel_size or layer_scale, or behind another prefix?"
        )
    for what, keys in (
        ("not used, for the backbone has no such output or stage", unused),
        ("left as they were", fresh),
    ):
        if keys:
            print_log(f"{filename}: {what}: {', '.join(keys)}", logger="current")
    return taken


class CheckedInit(PretrainedInit):
    """mmengine's ``Pretrained``, for published files too; what does not fit is an error and not a log line."""

    def __call__(self, module: BaseModule) -> None:
        """Load the checkpoint into a NAT, DiNAT or DiNAT_s.

        Raises:
            CheckpointError: It does not fit; see :func:`fitting`.
        """
        print_log(f"load model from: {self.checkpoint}", logger="current")
        own, rest = split(read_state(self.checkpoint, self.map_location), self.prefix)
        if not own:
            raise CheckpointError(f"{self.checkpoint}: no name starts with {self.prefix!r}, but {first_few(rest, 8)}")
        if rest:
            print_log(f"{self.checkpoint}: not of the backbone: {', '.join(rest)}", logger="current")
        module.load_state_dict(module.state_dict() | fitting(module, own, self.checkpoint))
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())


def checked(init_cfg: dict | list[dict] | None) -> list[dict]:
    """``init_cfg`` with :class:`CheckedInit` for ``Pretrained``, and that last, where mmengine has it too."""
    configs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or ())
    others = [config for config in configs if config["type"] not in ("Pretrained", PretrainedInit, CheckedInit)]
    return others + [dict(config, type=CheckedInit) for config in configs if config not in others]


def _is_left_out(key: str, backbone: BaseModule) -> bool:
    """Whether it is of a stage or norm that the size has and the backbone, for its ``out_indices``, does not."""
    found = re.match(r"(norm|levels\.)(\d+)\.(downsample\.)?", key)
    if found is None or int(found[2]) >= len(backbone.arch.depths):
        return False
    built = len(backbone.levels)
    return found[1] == "norm" or int(found[2]) >= built or (int(found[2]) == built - 1 and found[3] is not None)


def _is_of_classifier(own: Mapping[str, Tensor]) -> bool:
    return _norms(own) == [_last_stage(own)]


def _norms(own: Mapping[str, Tensor]) -> list[int]:
    return sorted({int(found[1]) for key in own if (found := re.match(r"norm(\d+)\.", key))})


def _last_stage(own: Mapping[str, Tensor]) -> int:
    return max(0, _largest(r"levels\.(\d+)\.", own))


def _largest(pattern: str, keys: Iterable[str]) -> int:
    return max((int(found[1]) for key in keys if (found := re.match(pattern, key))), default=-1)
