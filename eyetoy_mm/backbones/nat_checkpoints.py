"""Published checkpoints of NAT, DiNAT and DiNAT_s: their names, and what they tell of the backbone.

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

from torch import Tensor

from eyetoy_mm import state_dicts
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.state_dicts import State


def split(state: Mapping[str, Tensor], prefix: str | None = None) -> tuple[State, State]:
    """The backbone's tensors under the names that they have here, and the rest under OpenMMLab's.

    Args:
        state: A published file of any kind, or one of OpenMMLab.
        prefix: What stands before the backbone's names; None takes ``"backbone."`` where there is such a name.
    """
    found, rest = state_dicts.split(state, prefix)
    own = {re.sub(r"^layers\.", "levels.", key): x for key, x in found.items()}
    heads = [key for key in own if key.startswith("head.")]
    rest |= {re.sub(r"^head\.(fc\.)?", "head.fc.", key): own.pop(key) for key in heads}
    last = _last_stage(own)
    own = {re.sub(r"^norm\.", f"norm{last}.", key): x for key, x in own.items()}
    return state_dicts.with_versions_of(found, own), rest


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


def _is_of_classifier(own: Mapping[str, Tensor]) -> bool:
    return _norms(own) == [_last_stage(own)]


def _norms(own: Mapping[str, Tensor]) -> list[int]:
    return sorted({int(found[1]) for key in own if (found := re.match(r"norm(\d+)\.", key))})


def _last_stage(own: Mapping[str, Tensor]) -> int:
    return max(0, _largest(r"levels\.(\d+)\.", own))


def _largest(pattern: str, keys: Iterable[str]) -> int:
    return max((int(found[1]) for key in keys if (found := re.match(pattern, key))), default=-1)
