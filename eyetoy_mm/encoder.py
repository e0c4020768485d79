"""The EyeToy encoder for sequences, images and volumes (docs/architecture.md, section 11). Needs torch alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from eyetoy_mm.layers.conv import CONVS, to_channels_first, to_channels_last
from eyetoy_mm.layers.embeddings import (
    PositionalEmbedding,
    PositionalEmbedding1D,
    PositionalEmbedding2D,
    PositionalEmbedding3D,
)
from eyetoy_mm.layers.global_attention import GlobalAttentionStack
from eyetoy_mm.layers.transformer import (
    TransformerStack,
    TransformerStack1D,
    TransformerStack2D,
    TransformerStack3D,
)
from eyetoy_mm.params import ConvParams, GlobalAttentionTransformerParams, TransformerParams

Weighted: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def _xavier_normal(module: Weighted) -> None:
    nn.init.xavier_normal_(module.weight)


def _group_xavier_normal(module: Weighted) -> None:
    fan_in = module.weight[0].numel()
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    fan_out = module.weight[:, 0].numel() // groups
    nn.init.normal_(module.weight, std=math.sqrt(2 / (fan_in + fan_out)))


INITS: dict[str, Callable[[Weighted], None]] = {
    "xavier_normal": _xavier_normal,
    "group_xavier_normal": _group_xavier_normal,
}
"""Initial weights: ``xavier_normal`` is PyTorch's, as in EyeToy's code. It takes convolutions in groups for whole ones:
tokens have a quarter of the map's size. ``group_xavier_normal`` counts the fans of a group (docs/decisions.md)."""


class Encoder(nn.Module):
    """``initial_proj`` -> positional embedding -> ``transformer_stack`` -> ``global_attention``.

    Built from its params: ``Encoder2D(**DEFAULT_IMG_ENCODER_PARAMS.__dict__)``.

    Args:
        initial_conv_params: The stem.
        transformer_params: One entry per MSNAT block.
        global_attention_params: The global stack, or None to leave it out.
        input_channels: Channels of the input.
        output_channels: Channels of the output.
        init: Initial weights of convolutions and linear layers, a name from :data:`INITS`.

    Raises:
        ValueError: Channels that do not fit from one part to the next, the message has both; an unknown ``init``.
    """

    ndim: int
    stack_type: type[TransformerStack]
    embedding_type: type[PositionalEmbedding]

    pe_scale = 0.1  # keeps the embedding from drowning the stem's features at the start of training

    def __init__(
        self,
        initial_conv_params: ConvParams,
        transformer_params: Sequence[TransformerParams],
        global_attention_params: GlobalAttentionTransformerParams | None,
        input_channels: int,
        output_channels: int,
        init: str = "xavier_normal",
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
        self.init = init
        self.initial_proj = CONVS[self.ndim](**initial_conv_params.__dict__)
        self.positional_embedding = self.embedding_type(initial_conv_params.out_channels)
        self.transformer_stack = self.stack_type(transformer_params)
        self.d_model = transformer_params[-1].out_channels
        _must_agree(
            "initial_conv_params.in_channels", initial_conv_params.in_channels, "input_channels", input_channels
        )
        _must_agree(
            "transformer_params[0].in_channels",
            transformer_params[0].in_channels,
            "initial_conv_params.out_channels",
            initial_conv_params.out_channels,
        )
        _must_agree("output_channels", output_channels, "transformer_params[-1].out_channels", self.d_model)
        self.global_attention = None
        if global_attention_params is not None:
            _must_agree(
                "global_attention_params.d_model", global_attention_params.d_model, "output_channels", self.d_model
            )
            self.global_attention = GlobalAttentionStack(**global_attention_params.__dict__)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights as ``init`` has them, and zero biases, of convolutions and linear layers."""
        for module in self.modules():
            if isinstance(module, Weighted):
                INITS[self.init](module)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_stages(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the map at the end of each stage, channels-last, and with the last one the context token.

        Args:
            x: ``(B, C_in, *spatial)``.

        Yields:
            ``(B, *spatial, C)`` maps; the last is refined by the global stack and comes with its context token ``(B,
            1, C)``, others with None.

        Raises:
            ValueError: ``x`` has another number of axes.
        """
        if x.dim() != self.ndim + 2:
            raise ValueError(
                f"{type(self).__name__} takes a batch (B, {self.initial_proj.in_channels}, *spatial) with {self.ndim} "
                f"spatial axes, got a tensor of shape {tuple(x.shape)}"
            )
        stem = self.initial_proj(to_channels_last(x)).contiguous()  # once, and not in each layer that reads it
        stem = stem + self.pe_scale * self.positional_embedding(stem)
        last = len(self.transformer_stack.stages) - 1
        for stage, features in enumerate(self.transformer_stack.forward_stages(stem)):
            if stage == last and self.global_attention is not None:
                yield self.global_attention(features)
            else:
                yield features, None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            x: ``(B, input_channels, *spatial)``.

        Returns:
            The features ``(B, output_channels, *spatial / total stride)`` and the context token ``(B, 1,
            output_channels)``, None where the global stack has none or is left out.

        Raises:
            ValueError: ``x`` has another number of axes.
        """
        *_, (features, context_token) = self.forward_stages(x)
        return to_channels_first(features), context_token


class Encoder1D(Encoder):
    """Encoder of sequences ``(B, C, L)``."""

    ndim = 1
    stack_type = TransformerStack1D
    embedding_type = PositionalEmbedding1D


class Encoder2D(Encoder):
    """Encoder of images ``(B, C, H, W)``."""

    ndim = 2
    stack_type = TransformerStack2D
    embedding_type = PositionalEmbedding2D


class Encoder3D(Encoder):
    """Encoder of volumes ``(B, C, D, H, W)``."""

    ndim = 3
    stack_type = TransformerStack3D
    embedding_type = PositionalEmbedding3D


def _must_agree(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise ValueError(f"{left_name}={left} does not fit {right_name}={right}")
