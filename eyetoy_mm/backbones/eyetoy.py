"""EyeToy as an OpenMMLab backbone: multi-scale maps for dense prediction, a context token for classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from torch import Tensor, nn

from eyetoy_mm.backbones.staged import StagedBackbone, ascending_indices
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.layers.checks import at_least, fraction
from eyetoy_mm.layers.conv import to_channels_first
from eyetoy_mm.params import (
    EARLY_MERGING,
    EARLY_WINDOWS,
    LATE_MERGING,
    LATE_WINDOWS,
    ConvParams,
    EncoderParams,
    GlobalAttentionTransformerParams,
    TransformerParams,
    msnat_params,
)
from eyetoy_mm.registry import MODELS


@dataclass(frozen=True)
class Arch:
    """What makes one size of the family; every tuple has one entry per stage.

    Attributes:
        embed_dims: Channels.
        depths: Blocks.
        num_heads: Heads of each head group.
        windows: Attention windows of the head groups, in merged tokens.
        merging: Token merging factors of the head groups.
        multi_scale: False leaves one head group in every layer, the first, with the heads of all.
        global_layers: Layers of the global stack, 0 for none.
        global_heads: Heads of each of them.
        register_tokens: Register tokens.
        use_context_token: Whether the global stack has a context token.
        conv_groups: Groups of the convolutions that merge tokens, where they divide the channels.
        overlap: Whether merged tokens overlap.
        stem_stride: Stride of the stem's map, 4 for dense prediction, 1 or 2 for small images.
        stem_channels: Channels of the stem's map where the first stage halves it, as every later stage halves the one
            before; None where the first stage goes on from the stem as it is.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...] = (EARLY_WINDOWS, EARLY_WINDOWS, LATE_WINDOWS, (7,))
    merging: tuple[tuple[int, ...], ...] = (EARLY_MERGING, EARLY_MERGING, LATE_MERGING, (1,))
    multi_scale: bool = True
    global_layers: int = 2
    global_heads: int = 8
    register_tokens: int = 32
    use_context_token: bool = True
    conv_groups: int = 32
    overlap: bool = False
    stem_stride: int = 4
    stem_channels: int | None = None


ARCHS: dict[str, Arch] = {
    "shallow": Arch(
        (128, 256),
        (2, 2),
        (2, 2),
        (EARLY_WINDOWS, EARLY_WINDOWS),
        (EARLY_MERGING, EARLY_MERGING),
        global_layers=0,
        stem_stride=1,
        stem_channels=64,
    ),
    "demo": Arch((32, 64, 128, 192), (1, 1, 2, 1), (1, 2, 2, 6), global_layers=1, global_heads=6, register_tokens=8),
    "tiny": Arch((64, 128, 384, 576), (1, 2, 6, 2), (1, 2, 3, 9), global_layers=1, global_heads=9),
    "small": Arch((64, 128, 384, 640), (2, 2, 15, 3), (1, 2, 3, 10), global_heads=10),
    "base": Arch((96, 192, 512, 768), (2, 2, 17, 2), (1, 3, 4, 12), global_heads=12),
}
"""Named sizes: shallow is the seeds' model for small images (seed 001, section 5.1), demo trains on two CPU cores, and
tiny, small and base stand beside Swin-T, -S and -B."""


@MODELS.register_module()
class EyeToy(StagedBackbone):
    """The EyeToy encoder with a map at the end of each stage: at strides 4, 8, 16 and 32, of ``shallow`` at 2 and 4.

    Args:
        arch: A name from :data:`ARCHS`, or a mapping with the fields of :class:`Arch`, where ``type`` may name the
            size that gives the rest: ``dict(type='tiny', register_tokens=8)``.
        in_channels: Channels of the image.
        out_indices: Stages whose maps are returned, in ascending order; negative ones count from the last. Stages
            after the last of them are not built, and the global stack belongs to the last stage. None takes every
            stage for maps, and the last one for classifiers.
        out_type: ``"featmap"`` for the maps; for classifiers ``"avg_featmap"``, their means over the positions, or
            ``"context_token"``, the context token alone, which only the last stage has.
        frozen_stages: -1 freezes nothing, 0 the stem, ``n`` the stem and the first ``n`` stages; frozen parts stay in
            evaluation mode.
        dropout: Dropout of tokens and branches.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        with_cp: Recompute the blocks in the backward pass, for less memory.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Raises:
        ValueError: An unknown size or out type, an index or number of stages that the size does not have, or numbers
            that are out of range or do not divide.
    """

    OUT_TYPES = ("featmap", "avg_featmap", "context_token")

    def __init__(
        self,
        arch: str | Mapping = "tiny",
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        out_type: str = "featmap",
        frozen_stages: int = -1,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = _resolve(arch)
        fraction(dropout=dropout, drop_path_rate=drop_path_rate)
        if out_type not in self.OUT_TYPES:
            raise ValueError(f"out_type must be one of {', '.join(self.OUT_TYPES)}, got {out_type!r}")
        num_stages = len(self.arch.depths)
        if out_indices is None:
            out_indices = range(num_stages) if out_type == "featmap" else (num_stages - 1,)
        self.out_indices = ascending_indices(out_indices, num_stages)
        has_context_token = self.arch.global_layers > 0 and self.arch.use_context_token
        if out_type == "context_token" and (self.out_indices != (num_stages - 1,) or not has_context_token):
            raise ValueError(
                f"out_type='context_token' needs out_indices=({num_stages - 1},) and a global stack with a context "
                f"token, got {tuple(out_indices)}, global_layers={self.arch.global_layers} and "
                f"use_context_token={self.arch.use_context_token}"
            )
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(f"frozen_stages must be between -1 and {num_stages}, got {frozen_stages}")
        self.out_type = out_type
        self.frozen_stages = frozen_stages

        params = encoder_params(self.arch, in_channels, dropout, drop_path_rate, num_stages=self.out_indices[-1] + 1)
        self.encoder = Encoder2D(**params.__dict__)
        stack = self.encoder.transformer_stack
        stack.gradient_checkpointing = with_cp
        for index in self.out_indices:  # each map is normed where it leaves
            self.add_module(f"norm{index}", nn.LayerNorm(stack.stage_channels[index]))
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: Images ``(B, in_channels, H, W)`` of any size.

        Returns:
            One map ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` per out index, or its mean ``(B, C_i)``; or the
            context token ``(B, C)`` alone.
        """
        outputs = []
        for stage, (features, context_token) in enumerate(self.encoder.forward_stages(x)):
            if stage not in self.out_indices:
                continue
            norm = self.get_submodule(f"norm{stage}")
            if self.out_type == "featmap":
                outputs.append(to_channels_first(norm(features)).contiguous())
            elif self.out_type == "avg_featmap":
                outputs.append(norm(features).flatten(1, -2).mean(1))
            else:
                outputs.append(norm(context_token).squeeze(1))
        return tuple(outputs)

    def _frozen_parts(self) -> list[nn.Module]:
        stack = self.encoder.transformer_stack
        parts: list[nn.Module] = []
        if self.frozen_stages >= 0:
            parts.append(self.encoder.initial_proj)
        for stage in range(min(self.frozen_stages, len(stack.stages))):
            parts.extend(stack.blocks[index] for index in stack.stages[stage])
            if stage in self.out_indices:
                parts.append(self.get_submodule(f"norm{stage}"))
        if self.frozen_stages == len(self.arch.depths) and self.encoder.global_attention is not None:
            parts.append(self.encoder.global_attention)
        return parts

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What stands before the backbone's own names, e.g. ``"backbone."``.

        Returns:
            The depth (0 for the stem, 1 for the first block, ...) and the number of depths, with one for what follows
            the backbone.
        """
        num_blocks = len(self.encoder.transformer_stack.blocks)
        num_global = len(self.encoder.global_attention.layers) if self.encoder.global_attention is not None else 0
        num_layers = num_blocks + num_global + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name.removeprefix(prefix)
        if name.startswith("encoder.initial_proj."):
            return 0, num_layers
        if name.startswith("encoder.transformer_stack.blocks."):
            return 1 + int(name.split(".")[3]), num_layers
        if name.startswith("encoder.global_attention.layers."):
            return 1 + num_blocks + int(name.split(".")[3]), num_layers
        return num_layers - 1, num_layers


def encoder_params(
    arch: Arch, in_channels: int = 3, dropout: float = 0.0, drop_path_rate: float = 0.0, num_stages: int | None = None
) -> EncoderParams:
    """The encoder of a size, cut after ``num_stages`` stages.

    The stem is one overlapping convolution whose map has ``ceil(size / stem_stride)`` positions per axis. The first
    block of every stage halves the map, in the first stage only where ``stem_channels`` are given.
    """
    num_stages = len(arch.depths) if num_stages is None else num_stages
    num_blocks = sum(arch.depths)
    blocks: list[TransformerParams] = []
    stem_channels = channels = arch.embed_dims[0] if arch.stem_channels is None else arch.stem_channels
    for stage in range(num_stages):
        windows, merging, num_heads = arch.windows[stage], arch.merging[stage], arch.num_heads[stage]
        if not arch.multi_scale:
            windows, merging, num_heads = windows[:1], merging[:1], num_heads * len(windows)
        for block in range(arch.depths[stage]):
            blocks.append(
                msnat_params(
                    channels,
                    arch.embed_dims[stage],
                    windows,
                    merging,
                    num_heads,
                    scale_factor=0.5 if block == 0 and (stage > 0 or arch.stem_channels is not None) else 1.0,
                    dropout=dropout,
                    drop_path=drop_path_rate * len(blocks) / max(num_blocks - 1, 1),
                    conv_groups=arch.conv_groups,
                    overlap=arch.overlap,
                )
            )
            channels = arch.embed_dims[stage]
    stride = arch.stem_stride
    stem = ConvParams(
        kernel_size=2 * stride - 1 if stride > 1 else 3,
        stride=stride,
        padding=stride - 1 if stride > 1 else 1,
        in_channels=in_channels,
        out_channels=stem_channels,
    )
    global_params = None
    if arch.global_layers and num_stages == len(arch.depths):
        global_params = GlobalAttentionTransformerParams(
            channels, arch.global_heads, arch.global_layers, arch.register_tokens, dropout, arch.use_context_token
        )
    return EncoderParams(stem, tuple(blocks), global_params, in_channels, channels)


def _resolve(arch: str | Mapping) -> Arch:
    changes = {"type": arch} if isinstance(arch, str) else dict(arch)
    name = changes.pop("type", None)
    if name is not None and name not in ARCHS:
        raise ValueError(f"unknown arch {name!r}; choose one of {', '.join(ARCHS)}, or give the numbers as a dict")
    known = [field.name for field in fields(Arch)]
    unknown = [key for key in changes if key not in known]
    if unknown:
        raise ValueError(f"arch has no field {', '.join(unknown)}; it has {', '.join(known)}")
    base = {} if name is None else dict(ARCHS[name].__dict__)
    missing = [key for key in ("embed_dims", "depths", "num_heads") if key not in base | changes]
    if missing:
        raise ValueError(f"arch without a type needs {', '.join(missing)}, got {changes}")
    resolved = Arch(**{key: _tuples(value) for key, value in (base | changes).items()})
    stages = {key: getattr(resolved, key) for key in ("embed_dims", "depths", "num_heads", "windows", "merging")}
    lengths = {key: len(value) if isinstance(value, tuple) else 0 for key, value in stages.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"arch needs one entry per stage in every list, got {stages}")
    for key in ("windows", "merging"):
        if not all(isinstance(groups, tuple) for groups in stages[key]):
            raise ValueError(f"arch needs one number per head group of each stage, got {key}={stages[key]}")
    at_least(1, depths=min(resolved.depths), stem_stride=resolved.stem_stride)
    at_least(0, global_layers=resolved.global_layers, register_tokens=resolved.register_tokens)
    return resolved


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
