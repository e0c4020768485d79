"""The numbers of a model: small frozen dataclasses of plain data, builders for common patterns, and named defaults.

Field names are those of the public EyeToy code; docs/architecture.md, section 15, has their
synonyms. A module is built from its dataclass by ``Module(**params.__dict__)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral


@dataclass(frozen=True)
class ConvParams:
    """A convolution, as ``torch.nn.ConvNd`` takes it; ``padding`` is a number, ``"same"`` or ``"valid"``.

    ``padding_mode`` says what lies around the map: ``"zeros"``, or ``"replicate"`` for its border once more.
    """

    kernel_size: int
    stride: int = 1
    padding: int | str = "same"
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    in_channels: int = 0
    out_channels: int = 0
    padding_mode: str = "zeros"


@dataclass(frozen=True)
class NeighborhoodAttentionParams:
    """A neighborhood, counted in merged tokens per axis.

    ``attention_window`` is the window, ``kernel_size`` in ops: the keys of a query. ``dilation`` is the distance
    between two of them. ``attention_stride`` is the step at which windows move, NATTEN's ``stride``; only 1, a window
    for every token, exists.
    """

    attention_window: int
    attention_stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class HeadParams:
    """A head group, heads that share one scale: one tokenizer, one window.

    ``num_heads`` counts the heads of this group alone; ``intermediate_channels`` is the head dim (``head_dim`` in
    ops). The ``stride`` of ``conv_params`` is the merging factor. ``dropout`` acts on the tokens.
    """

    attn_params: NeighborhoodAttentionParams
    num_heads: int
    in_channels: int
    intermediate_channels: int
    conv_params: ConvParams
    dropout: float = 0.1


@dataclass(frozen=True)
class MultiHeadAttentionParams:
    """Head groups in parallel, and the projection that mixes them; ``scale_factor`` rescales the map in between.

    ``intermediate_channels`` is the head dim; each group states its own.
    """

    head_params: Sequence[HeadParams]
    intermediate_channels: int
    out_channels: int
    final_conv_params: ConvParams
    scale_factor: float = 1.0


@dataclass(frozen=True)
class TransformerParams:
    """An MSNAT block. ``scale_factor`` 0.5 makes it downsample inside; ``drop_path`` is the rate of drop path."""

    in_channels: int
    out_channels: int
    attention_params: MultiHeadAttentionParams
    scale_factor: float = 1.0
    dropout: float = 0.2
    drop_path: float = 0.0


@dataclass(frozen=True)
class GlobalAttentionTransformerParams:
    """The stack of global layers, which share one set of register tokens and one context token, if any.

    ``d_model`` are the channels, ``num_heads`` all heads of a layer.
    """

    d_model: int
    num_heads: int
    num_layers: int
    num_register_tokens: int = 4
    dropout: float = 0.1
    use_context_token: bool = True


@dataclass(frozen=True)
class EncoderParams:
    """A whole encoder; ``global_attention_params`` None leaves the global stack out.

    ``initial_conv_params`` are the stem's; ``input_channels`` are those of the images, ``output_channels`` of the last
    map. ``init`` says what weights start as.
    """

    initial_conv_params: ConvParams
    transformer_params: Sequence[TransformerParams]
    global_attention_params: GlobalAttentionTransformerParams | None
    input_channels: int
    output_channels: int
    init: str = "xavier_normal"


def msnat_params(
    in_channels: int,
    out_channels: int,
    windows: Sequence[int],
    merging: Sequence[int],
    num_heads: int,
    scale_factor: float = 1.0,
    dropout: float = 0.2,
    drop_path: float = 0.0,
    conv_groups: int | str = 32,
    overlap: bool = False,
    padding_mode: str = "zeros",
) -> TransformerParams:
    """An MSNAT block with one head group per entry of ``windows`` / ``merging``.

    Group ``i`` merges ``merging[i]`` positions per axis into one token by a convolution of that kernel and stride, and
    attends in windows of ``windows[i]`` merged tokens.

    Args:
        in_channels: Channels of the block's input.
        out_channels: Channels of its output; they are shared evenly by the heads of all groups.
        windows: Window of each group, in merged tokens.
        merging: Merging factor of each group.
        num_heads: Heads of one group, not of all.
        scale_factor: 0.5 halves the map inside the block.
        dropout: Dropout of the tokens and of both branches.
        drop_path: Rate of drop path (stochastic depth) of both branches.
        conv_groups: Groups of the tokenizer convolutions: the largest number up to this one that divides the channels
            of input and output; ``"depthwise"`` for the largest of all, one per channel where the input's divide the
            output's.
        overlap: Whether a merged token also sees half of each neighbor's cell.
        padding_mode: What the tokens at the border see beyond the map: ``"zeros"``, or ``"replicate"`` for its
            border once more.

    Raises:
        ValueError: Lists of different lengths, numbers below 1, channels that the heads do not divide, or groups by an
            unknown name.
    """
    if len(windows) != len(merging) or not windows:
        raise ValueError(f"windows and merging need one entry per head group, got {windows=} and {merging=}")
    counts = dict(in_channels=in_channels, out_channels=out_channels, num_heads=num_heads)
    for name, value in (counts | dict(windows=min(windows), merging=min(merging))).items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    heads = len(windows) * num_heads
    if out_channels % heads:
        raise ValueError(f"{out_channels=} does not divide by {len(windows)} groups x {num_heads=} = {heads} heads")
    groups = _groups(conv_groups, math.gcd(in_channels, out_channels))

    def tokenizer(factor: int) -> ConvParams:
        reach = factor // 2 if overlap else 0  # half a cell on either side
        return ConvParams(
            kernel_size=factor + 2 * reach,
            stride=factor,
            padding="same" if factor == 1 else reach or "valid",
            groups=groups,
            in_channels=in_channels,
            out_channels=out_channels,
            padding_mode=padding_mode,
        )

    head_params = tuple(
        HeadParams(
            attn_params=NeighborhoodAttentionParams(attention_window=window),
            num_heads=num_heads,
            in_channels=in_channels,
            intermediate_channels=out_channels // heads,
            conv_params=tokenizer(factor),
            dropout=dropout,
        )
        for window, factor in zip(windows, merging, strict=True)
    )
    return TransformerParams(
        in_channels=in_channels,
        out_channels=out_channels,
        attention_params=MultiHeadAttentionParams(
            head_params=head_params,
            intermediate_channels=out_channels // heads,
            out_channels=out_channels,
            final_conv_params=ConvParams(kernel_size=1, in_channels=out_channels, out_channels=out_channels),
            scale_factor=scale_factor,
        ),
        scale_factor=scale_factor,
        dropout=dropout,
        drop_path=drop_path,
    )


def _groups(wanted: int | str, largest: int) -> int:
    """The largest number of groups up to ``wanted`` that divides ``largest``, which ``"depthwise"`` stands for."""
    if wanted == "depthwise":
        return largest
    if not isinstance(wanted, Integral) or isinstance(wanted, bool):
        raise ValueError(f"conv_groups must be a number or 'depthwise', got {wanted!r}")
    if wanted < 1:
        raise ValueError(f"conv_groups must be at least 1, got {wanted}")
    return next(groups for groups in range(min(wanted, largest), 0, -1) if largest % groups == 0)


# Early layers look far at four scales, late ones near (docs/architecture.md, section 5).
EARLY_WINDOWS, EARLY_MERGING = (17, 13, 11, 9), (1, 2, 4, 8)
LATE_WINDOWS, LATE_MERGING = (7, 5, 3, 3), (1, 2, 3, 4)

DEFAULT_IMG_ENCODER_PARAMS = EncoderParams(
    initial_conv_params=ConvParams(kernel_size=3, in_channels=3, out_channels=64),
    transformer_params=(
        msnat_params(64, 128, EARLY_WINDOWS, EARLY_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(128, 128, EARLY_WINDOWS, EARLY_MERGING, num_heads=2),
        msnat_params(128, 256, EARLY_WINDOWS, EARLY_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(256, 256, EARLY_WINDOWS, EARLY_MERGING, num_heads=2),
        msnat_params(256, 512, LATE_WINDOWS, LATE_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(512, 512, LATE_WINDOWS, LATE_MERGING, num_heads=2),
        msnat_params(512, 1024, LATE_WINDOWS, LATE_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(1024, 1024, (7,), (1,), num_heads=8),
    ),
    global_attention_params=GlobalAttentionTransformerParams(
        d_model=1024, num_heads=8, num_layers=4, num_register_tokens=32, dropout=0.2
    ),
    input_channels=3,
    output_channels=1024,
)
"""EyeToy's image encoder (docs/architecture.md, section 11); for its early windows see section 16 there."""

DEFAULT_SEQ_ENCODER_PARAMS = EncoderParams(
    initial_conv_params=ConvParams(kernel_size=3, in_channels=1, out_channels=64),
    transformer_params=(
        msnat_params(64, 128, EARLY_WINDOWS, EARLY_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(128, 128, EARLY_WINDOWS, EARLY_MERGING, num_heads=2),
        msnat_params(128, 256, LATE_WINDOWS, LATE_MERGING, num_heads=2, scale_factor=0.5),
        msnat_params(256, 256, LATE_WINDOWS, LATE_MERGING, num_heads=2),
    ),
    global_attention_params=GlobalAttentionTransformerParams(
        d_model=256, num_heads=8, num_layers=2, num_register_tokens=8, dropout=0.2
    ),
    input_channels=1,
    output_channels=256,
)
"""An encoder of sequences of one channel, such as sound: the image encoder's pattern at half the depth."""

# A window has its third power of tokens, and an embedding of three axes needs channels that divide by 6.
DEFAULT_VOL_ENCODER_PARAMS = EncoderParams(
    initial_conv_params=ConvParams(kernel_size=3, in_channels=1, out_channels=48),
    transformer_params=(
        msnat_params(48, 96, (7, 5, 3), (1, 2, 4), num_heads=2, scale_factor=0.5),
        msnat_params(96, 96, (7, 5, 3), (1, 2, 4), num_heads=2),
        msnat_params(96, 192, (5, 3), (1, 2), num_heads=3, scale_factor=0.5),
        msnat_params(192, 192, (5, 3), (1, 2), num_heads=3),
    ),
    global_attention_params=GlobalAttentionTransformerParams(
        d_model=192, num_heads=6, num_layers=2, num_register_tokens=8, dropout=0.2
    ),
    input_channels=1,
    output_channels=192,
)
"""An encoder of volumes of one channel, such as scans: smaller windows, and fewer scales late."""
