"""EyeToy as an OpenMMLab backbone: multi-scale maps for dense prediction, a context token for classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from eyetoy_mm.archs import encoder_params, resolve
from eyetoy_mm.backbones.staged import InitCfg, StagedBackbone
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.layers.checks import fraction, true_or_false
from eyetoy_mm.registry import MODELS


@MODELS.register_module()
class EyeToy(StagedBackbone):
    """The EyeToy encoder with a map at the end of each stage: at strides 4, 8, 16 and 32, of ``shallow`` at 2 and 4.

    Args:
        arch: A name from :data:`~eyetoy_mm.archs.ARCHS`, or a mapping with the fields of
            :class:`~eyetoy_mm.archs.Arch`, where ``type`` may name the size that gives the rest:
            ``dict(type='tiny', register_tokens=8)``.
        in_channels: Channels of the image.
        out_indices: As in :class:`StagedBackbone`. Stages after the last of them are not built, and the global stack
            belongs to the last stage.
        out_type: As there; only the last stage has a context token.
        frozen_stages: As there.
        dropout: Dropout of tokens and branches.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        with_cp: Recompute the blocks in the backward pass, for less memory.
        init_cfg: As in :class:`StagedBackbone`: ``dict(type='Pretrained', checkpoint=...)`` takes a file of the
            backbone, or of a model with it; what does not fit is an error.

    Raises:
        ValueError: An unknown size or out type, an index or number of stages that the size does not have, or numbers
            that are out of range or do not divide.
    """

    OUT_TYPES = ("featmap", "avg_featmap", "context_token")
    stem_module = "encoder.initial_proj"
    encoder_type: type[Encoder2D] = Encoder2D
    """Takes the fields of :class:`~eyetoy_mm.params.EncoderParams`; a subclass names its own."""

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        out_type: str = "featmap",
        frozen_stages: int = -1,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        resolved = resolve(arch)
        fraction(dropout=dropout, drop_path_rate=drop_path_rate)
        true_or_false(with_cp=with_cp)
        super().__init__(
            resolved.embed_dims, resolved.strides, out_indices, out_type, frozen_stages, init_cfg, in_channels
        )
        self.arch = resolved
        last = self.num_stages - 1
        has_context_token = resolved.global_layers > 0 and resolved.use_context_token
        if out_type == "context_token" and (self.out_indices != (last,) or not has_context_token):
            raise ValueError(
                f"out_type='context_token' needs out_indices=({last},) and a global stack with a context token, got "
                f"{self.out_indices}, global_layers={resolved.global_layers} and "
                f"use_context_token={resolved.use_context_token}"
            )
        params = encoder_params(resolved, in_channels, dropout, drop_path_rate, num_stages=self.built_stages.stop)
        self.encoder = self.encoder_type(**params.__dict__)
        self.encoder.transformer_stack.gradient_checkpointing = with_cp
        self.finish()

    def forward_stages(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The encoder's; only the last stage has a context token."""
        return self.encoder.forward_stages(x)

    def stage_modules(self, stage: int) -> list[str]:
        """Its blocks, and of the last stage the layers of the global stack."""
        first, depth = sum(self.arch.depths[:stage]), self.arch.depths[stage]
        names = [f"encoder.transformer_stack.blocks.{index}" for index in range(first, first + depth)]
        if stage == self.num_stages - 1:
            names += [f"encoder.global_attention.layers.{index}" for index in range(self.arch.global_layers)]
        return names
