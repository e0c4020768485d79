"""NAT, DiNAT and DiNAT_s: the published neighborhood attention backbones, on the project's operator.

Sources: Hassani et al., "Neighborhood Attention Transformer" (CVPR 2023); Hassani and Shi, "Dilated Neighborhood
Attention Transformer" (2022); their public repository, whose names of parameters are kept. As equations:
docs/architecture.md, section 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import cycle, islice, pairwise
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eyetoy_mm.backbones import nat_checkpoints
from eyetoy_mm.backbones.staged import InitCfg, StagedBackbone
from eyetoy_mm.layers.checks import as_tuples, at_least, fraction, is_whole, true_or_false, whole
from eyetoy_mm.layers.conv import Conv2D, to_channels_last
from eyetoy_mm.layers.drop_path import DropPath
from eyetoy_mm.layers.mlp import FeedForward
from eyetoy_mm.ops import neighborhood_attention, plain_form
from eyetoy_mm.registry import MODELS
from eyetoy_mm.state_dicts import State

# --- Parts; maps are channels-last (B, H, W, C) ----------------------------------------------------------------------


class BiasedNA(nn.Module):
    """Multi-head neighborhood attention with a learned relative position bias, projections included.

    Args:
        channels: Channels of input and output.
        num_heads: Heads; they divide the channels.
        kernel_size: Window, odd.
        dilation: Distance between the positions of a window.
        padding: What happens on an axis shorter than ``kernel_size * dilation``. ``"clamp"``: the window is clamped to
            the dilation group. ``"zeros"``, the rule that the published models were trained with: zeros are appended to
            the input until the window fits; their keys and values are the projection's bias, and they are attended to.
    """

    def __init__(self, channels: int, num_heads: int, kernel_size: int, dilation: int, padding: str = "clamp") -> None:
        super().__init__()
        self.num_heads, self.kernel_size, self.dilation, self.padding = num_heads, kernel_size, dilation, padding
        self.qkv = nn.Linear(channels, 3 * channels)
        self.rpb = nn.Parameter(self.qkv.weight.new_zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> the same shape."""
        height, width = x.shape[1:3]
        if self.padding == "zeros":
            reach = self.kernel_size * self.dilation
            # in the graph of an export for any size neither is known to be larger
            larger = torch.sym_max if plain_form.is_for_any_size((height, width)) else max
            x = F.pad(x, (0, 0, 0, larger(0, reach - width), 0, larger(0, reach - height)))
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        attended = neighborhood_attention(query, key, value, self.kernel_size, self.dilation, self.rpb)
        return self.proj(attended[:, :height, :width].flatten(-2))


class Block(nn.Module):
    """Attention and feed-forward network, both on normed input and with a residual, scaled by channel or not."""

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(
        self, channels: int, attention: BiasedNA, mlp_ratio: int, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path)
        for name in ("gamma1", "gamma2"):
            gamma = nn.Parameter(self.norm1.weight.new_full((channels,), layer_scale)) if layer_scale else None
            self.register_parameter(name, gamma)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> the same shape."""
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


class ConvStem(nn.Module):
    """Two overlapping convolutions of stride 2 with nothing between, and a norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        widths = (in_channels, channels // 2, channels)
        self.proj = nn.Sequential(
            *(Conv2D(kernel_size=3, stride=2, padding=1, in_channels=a, out_channels=b) for a, b in pairwise(widths))
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, in_channels)`` -> ``(B, ceil(H / 4), ceil(W / 4), channels)``."""
        return self.norm(self.proj(x))


class ConvDownsampler(nn.Module):
    """An overlapping convolution of stride 2, and a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = Conv2D(
            kernel_size=3, stride=2, padding=1, bias=False, in_channels=channels, out_channels=2 * channels
        )
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> ``(B, ceil(H / 2), ceil(W / 2), 2 C)``."""
        return self.norm(self.reduction(x))


class PatchStem(nn.Module):
    """Swin's: a linear map of patches of 4 x 4 pixels, with zeros beyond the border, and a norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = Conv2D(kernel_size=4, stride=4, padding=0, in_channels=in_channels, out_channels=channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, in_channels)`` -> ``(B, ceil(H / 4), ceil(W / 4), channels)``."""
        return self.norm(self.proj(_pad_to_multiple(x, 4)))


class PatchMerging(nn.Module):
    """Swin's: the channels of 2 x 2 positions, with zeros beyond the border, normed and mapped to half as many."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> ``(B, ceil(H / 2), ceil(W / 2), 2 C)``."""
        x = _pad_to_multiple(x, 2).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, 2, W/2, 2, C)
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))  # rows change faster than columns


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % multiple, 0, -height % multiple))


class Level(nn.Module):
    """One stage: blocks, and what makes the next stage's map."""

    def __init__(self, blocks: Sequence[Block], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """``(B, H, W, C)`` -> the same shape, and the input of the next stage."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x, x if self.downsample is None else self.downsample(x)


# --- The whole --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NATArch:
    """What makes one size of the family, up to dilations.

    Attributes:
        embed_dims: Channels of the first stage; every further stage has twice as many.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        mlp_ratio: Width of the feed-forward networks, in channels of the stage.
        layer_scale: First value of the learned factors on the branches, 0 for no such factors.
        kernel_size: Window, odd.
    """

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: int
    layer_scale: float = 0.0
    kernel_size: int = 7


@MODELS.register_module()
class NAT(StagedBackbone):
    """Neighborhood Attention Transformer, with a map at the end of each stage: at strides 4, 8, 16 and 32.

    Args:
        arch: A size from ``ARCHS``, or a mapping with the fields of :class:`NATArch`, where ``type`` may name the size
            that gives the rest: ``dict(type='tiny', kernel_size=5)``; None where the numbers say it all.
        embed_dims: Channels of the first stage; this and the numbers below replace those of ``arch``.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        kernel_size: Window, odd.
        mlp_ratio: Width of the feed-forward networks, in channels of the stage.
        dilations: One for each block, in a list for each stage or in a single one, or a name from ``DILATIONS``; None
            for the first of these, and 1 where there are none. They are not in a checkpoint.
        layer_scale: First value of the learned factors on the branches, 0 for no such factors.
        in_channels: Channels of the image.
        out_indices: As in :class:`StagedBackbone`. Stages after the last of them are not built.
        out_type: As there, ``"featmap"`` or ``"avg_featmap"``.
        frozen_stages: As there.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        with_cp: Recompute the blocks in the backward pass, for less memory.
        padding: What happens where a window with its gaps is larger than the map: ``"clamp"`` clamps the window;
            ``"zeros"`` pads the map as the published models did, for these. See :class:`BiasedNA`.
        init_cfg: As in :class:`StagedBackbone`: ``dict(type='Pretrained', checkpoint=...)`` takes the published files
            as they are and the project's own; what does not fit is an error.

    Raises:
        ValueError: An unknown size, padding or out type, an index or number of stages that the size does not have, or
            numbers that are out of range, do not divide, or are not one per stage or block.
    """

    ARCHS = {
        "mini": NATArch(64, (3, 4, 6, 5), (2, 4, 8, 16), 3),
        "tiny": NATArch(64, (3, 4, 18, 5), (2, 4, 8, 16), 3),
        "small": NATArch(96, (3, 4, 18, 5), (3, 6, 12, 24), 2, layer_scale=1e-5),
        "base": NATArch(128, (3, 4, 18, 5), (4, 8, 16, 32), 2, layer_scale=1e-5),
    }
    DILATIONS: dict[str, tuple[tuple[int, ...], ...]] = {}
    """Dilations by name, the default first; of each stage, repeated up to its depth."""
    PADDINGS = ("clamp", "zeros")
    stem_module = "patch_embed"
    stem_type: type[nn.Module] = ConvStem
    downsampler_type: type[nn.Module] = ConvDownsampler

    def __init__(
        self,
        arch: str | Mapping[str, Any] | None = "tiny",
        *,
        embed_dims: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        kernel_size: int | None = None,
        mlp_ratio: int | None = None,
        dilations: str | Sequence[int] | Sequence[Sequence[int]] | None = None,
        layer_scale: float | None = None,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        out_type: str = "featmap",
        frozen_stages: int = -1,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        padding: str = "clamp",
        init_cfg: InitCfg = None,
    ) -> None:
        resolved = self._resolve(
            arch,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            kernel_size=kernel_size,
            mlp_ratio=mlp_ratio,
            layer_scale=layer_scale,
        )
        fraction(drop_path_rate=drop_path_rate)
        true_or_false(with_cp=with_cp)
        if padding not in self.PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(self.PADDINGS)}, got {padding!r}")
        channels = [resolved.embed_dims * 2**stage for stage in range(len(resolved.depths))]
        strides = [4 * 2**stage for stage in range(len(resolved.depths))]
        super().__init__(channels, strides, out_indices, out_type, frozen_stages, init_cfg, in_channels)
        self.arch, self.with_cp = resolved, with_cp
        self.dilations = self._resolve_dilations(dilations)

        step = drop_path_rate / max(sum(resolved.depths) - 1, 1)
        self.patch_embed = self.stem_type(in_channels, resolved.embed_dims)
        self.levels = nn.ModuleList()
        for stage in self.built_stages:
            first = sum(resolved.depths[:stage])
            blocks = [
                Block(
                    channels[stage],
                    BiasedNA(channels[stage], resolved.num_heads[stage], resolved.kernel_size, dilation, padding),
                    resolved.mlp_ratio,
                    resolved.layer_scale,
                    step * (first + index),
                )
                for index, dilation in enumerate(self.dilations[stage])
            ]
            is_last = stage == self.built_stages[-1]
            self.levels.append(Level(blocks, None if is_last else self.downsampler_type(channels[stage])))
        for name, parameter in self.named_parameters():
            if name.endswith(".rpb"):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.finish()

    def forward_stages(self, x: Tensor) -> Iterator[tuple[Tensor, None]]:
        """The map at the end of each stage; there is no context token."""
        x = self.patch_embed(to_channels_last(x))
        for level in self.levels:
            features, x = level(x, recompute=self.with_cp and self.training)
            yield features, None

    def stage_modules(self, stage: int) -> list[str]:
        """The level, with what makes the next one's map."""
        return [f"levels.{stage}"]

    def depth_modules(self) -> list[list[str]]:
        """A block each; a downsampler has the depth of the block after it, the first of the next level."""
        names: list[list[str]] = [[self.stem_module]]
        for stage in self.built_stages:
            names += ([f"levels.{stage}.blocks.{index}"] for index in range(self.arch.depths[stage]))
            names[-self.arch.depths[stage]] += [f"levels.{stage - 1}.downsample"]
        return names

    def modules_left_out(self) -> list[str]:
        """Also what would make the map after the last that is built."""
        return [*super().modules_left_out(), f"levels.{self.built_stages[-1]}.downsample"]

    @classmethod
    def split(cls, state: State, prefix: str | None = None) -> tuple[State, State]:
        """Published names are taken too; see :func:`.nat_checkpoints.split`."""
        return nat_checkpoints.split(state, prefix)

    @classmethod
    def _resolve(cls, arch: str | Mapping[str, Any] | None, **overrides: Any) -> NATArch:
        if not (arch is None or isinstance(arch, str | Mapping)):
            raise ValueError(f"arch must be one of {', '.join(cls.ARCHS)}, or a dict with numbers, got {arch!r}")
        changes = dict(arch) if isinstance(arch, Mapping) else {"type": arch}
        size = changes.pop("type", None)
        if size is not None and not (isinstance(size, str) and size in cls.ARCHS):
            raise ValueError(f"unknown arch {size!r}; {cls.__name__} has {', '.join(cls.ARCHS)}, or give the numbers")
        names = [field.name for field in fields(NATArch)]
        unknown = [name for name in changes if name not in names]
        if unknown:
            raise ValueError(f"arch has no field {', '.join(unknown)}; it has {', '.join(names)}")
        changes |= {name: value for name, value in overrides.items() if value is not None}
        values: dict[str, Any] = {} if size is None else asdict(cls.ARCHS[size])
        values |= {key: as_tuples(value) for key, value in changes.items()}
        missing = [name for name in ("embed_dims", "depths", "num_heads", "mlp_ratio") if name not in values]
        if missing:
            raise ValueError(f"arch without a type needs {', '.join(missing)} too, got {changes}")
        resolved = NATArch(**values)
        lists = (resolved.depths, resolved.num_heads)
        if not all(isinstance(each, tuple) for each in lists) or not len(lists[0]) == len(lists[1]) > 0:
            raise ValueError(f"depths and num_heads need one entry per stage, got {lists[0]} and {lists[1]}")
        whole(depths=resolved.depths, num_heads=resolved.num_heads)
        at_least(1, depths=min(resolved.depths), num_heads=min(resolved.num_heads), embed_dims=resolved.embed_dims)
        at_least(1, kernel_size=resolved.kernel_size, mlp_ratio=resolved.mlp_ratio)
        if resolved.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, for a window with a centre, got {resolved.kernel_size}")
        layer_scale = resolved.layer_scale
        if isinstance(layer_scale, bool) or not isinstance(layer_scale, Real) or not 0 <= layer_scale < math.inf:
            raise ValueError(f"layer_scale must be a finite number of at least 0, got {layer_scale!r}")
        for stage, heads in enumerate(resolved.num_heads):
            if resolved.embed_dims * 2**stage % heads:
                raise ValueError(
                    f"num_heads={heads} of stage {stage} does not divide its {resolved.embed_dims * 2**stage} channels"
                )
        return resolved

    def _resolve_dilations(
        self, dilations: str | Sequence[int] | Sequence[Sequence[int]] | None
    ) -> tuple[tuple[int, ...], ...]:
        depths = self.arch.depths
        if dilations is None:
            dilations = next(iter(self.DILATIONS), [1] * sum(depths))
        if isinstance(dilations, str):
            if dilations not in self.DILATIONS:
                known = f"choose one of {', '.join(self.DILATIONS)}" if self.DILATIONS else "it has none by name"
                raise ValueError(
                    f"unknown dilations {dilations!r} of {type(self).__name__}; {known}, or give the numbers"
                )
            dilations = [list(islice(cycle(row), depth)) for row, depth in zip(self.DILATIONS[dilations], depths)]
        given: Any = dilations
        if _are_numbers(given) and len(given) == sum(depths):
            numbers = iter(given)
            given = [list(islice(numbers, depth)) for depth in depths]
        if not isinstance(given, Sequence) or not all(map(_are_numbers, given)) or [*map(len, given)] != [*depths]:
            raise ValueError(
                f"dilations need one number per block of each stage, {depths=}, as a list for each stage or as one "
                f"list of {sum(depths)}, got {dilations}"
            )
        at_least(1, dilations=min(map(min, given)))
        return as_tuples(given)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(map(is_whole, values))


# --- Variants ---------------------------------------------------------------------------------------------------------


@MODELS.register_module()
class DiNAT(NAT):
    """Dilated Neighborhood Attention Transformer: NAT where every other block has a window with gaps.

    ``dilations`` take the names of the published training settings: ``"imagenet"`` for images of 224 pixels, and of
    384 with windows of 11; ``"imagenet-384"`` for 384 with windows of 7; ``"coco"``; ``"ade20k"`` for crops of 512, and
    ``"ade20k-640"``; ``"mask2former"`` for all that was trained with that head, with windows of 11.
    """

    ARCHS = NAT.ARCHS | {
        "small": NATArch(96, (3, 4, 18, 5), (3, 6, 12, 24), 2),
        "large": NATArch(192, (3, 4, 18, 5), (6, 12, 24, 48), 2),
    }
    DILATIONS = {
        "imagenet": ((1, 8), (1, 4), (1, 2), (1,)),
        "imagenet-384": ((1, 13), (1, 6), (1, 3), (1,)),
        "coco": ((1, 28), (1, 7, 1, 14), (1, 3, 1, 5, 1, 7), (1, 3)),
        "ade20k": ((1, 16), (1, 4, 1, 8), (1, 2, 1, 3, 1, 4), (1, 2)),
        "ade20k-640": ((1, 20), (1, 5, 1, 10), (*(1, 2, 1, 3, 1, 4, 1, 5) * 2, 1, 5), (1, 2)),
        "mask2former": ((1, 14), (1, 4, 1, 7), (*(1, 2, 1, 3) * 4, 1, 3), (1,)),
    }


@MODELS.register_module()
class DiNAT_s(DiNAT):
    """DiNAT with Swin's depths, widths, stem and downsamplers."""

    ARCHS = {
        "tiny": NATArch(96, (2, 2, 6, 2), (3, 6, 12, 24), 4),
        "small": NATArch(96, (2, 2, 18, 2), (3, 6, 12, 24), 4),
        "base": NATArch(128, (2, 2, 18, 2), (4, 8, 16, 32), 4),
        "large": NATArch(192, (2, 2, 18, 2), (6, 12, 24, 48), 4),
    }
    DILATIONS = DiNAT.DILATIONS | {
        "coco": ((1, 28), (1, 14), (1, 3, 1, 5, 1, 7), (1, 3)),
        "ade20k": ((1, 16), (1, 8), (1, 2, 1, 3, 1, 4), (1, 2)),
        "ade20k-640": ((1, 20), (1, 10), (*(1, 2, 1, 3, 1, 4, 1, 5) * 2, 1, 5), (1, 2)),
    }
    stem_type = PatchStem
    downsampler_type = PatchMerging
