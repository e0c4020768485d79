"""EyeToy as an OpenMMLab backbone: multi-scale maps for dense prediction, a context token for classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from mmengine.model import BaseModule
from torch import Tensor, nn

from eyetoy_mm.encoder import Encoder2D
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
        global_layers: Layers of the global stack, 0 for none.
        global_heads: Heads of each of them.
        register_tokens: Register tokens.
        stem_stride: Stride of the first map, 4 for dense prediction, 1 or 2 for small images.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...] = (EARLY_WINDOWS, EARLY_WINDOWS, LATE_WINDOWS, (7,))
    merging: tuple[tuple[int, ...], ...] = (EARLY_MERGING, EARLY_MERGING, LATE_MERGING, (1,))
    global_layers: int = 2
    global_heads: int = 8
    register_tokens: int = 32
    stem_stride: int = 4


ARCHS: dict[str, Arch] = {
    "demo": Arch((32, 64, 128, 192), (1, 1, 2, 1), (1, 2, 2, 6), global_layers=1, global_heads=6, register_tokens=8),
    "tiny": Arch((64, 128, 320, 512), (2, 2, 10, 2), (2, 2, 2, 8)),
    "small": Arch((64, 128, 384, 640), (2, 2, 15, 3), (2, 2, 3, 10), global_heads=10),
    "base": Arch((96, 192, 512, 768), (2, 2, 17, 2), (3, 3, 4, 12), global_heads=12),
}
"""Named sizes: tiny, small and base stand beside Swin-T, -S and -B; demo trains on two CPU cores."""


@MODELS.register_module()
class EyeToy(BaseModule):
    """The EyeToy encoder with a map at the end of each stage, at strides 4, 8, 16 and 32 for the named sizes.

    Args:
        arch: A name from :data:`ARCHS`, or a mapping with the fields of :class:`Arch`, where ``type`` may name the
            size that gives the rest: ``dict(type='tiny', register_tokens=8)``.
        in_channels: Channels of the image.
        out_indices: Stages whose maps are returned, in ascending order; negative ones count from the last. Stages
            after the last of them are not built, and the global stack belongs to the last stage.
        out_type: ``"featmap"`` for the maps, ``"context_token"`` for the context token alone, which needs the last
            stage.
        frozen_stages: -1 freezes nothing, 0 the stem, ``n`` the stem and the first ``n`` stages; frozen parts stay in
            evaluation mode.
        dropout: Dropout of tokens and branches.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        with_cp: Recompute the blocks in the backward pass, for less memory.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Raises:
        ValueError: An unknown size or out type, an index or number of stages that the size does not have, or numbers
            that do not divide.
    """

    def __init__(
        self,
        arch: str | Mapping = "tiny",
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = "featmap",
        frozen_stages: int = -1,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = _resolve(arch)
        num_stages = len(self.arch.depths)
        self.out_indices = _ascending_indices(out_indices, num_stages)
        if out_type not in ("featmap", "context_token"):
            raise ValueError(f"out_type must be 'featmap' or 'context_token', got {out_type!r}")
        if out_type == "context_token" and (self.out_indices != (num_stages - 1,) or not self.arch.global_layers):
            raise ValueError(
                f"out_type='context_token' needs out_indices=({num_stages - 1},) and a global stack, "
                f"got {tuple(out_indices)} and global_layers={self.arch.global_layers}"
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
            One map ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` per out index; or the context token ``(B, C)``
            alone.
        """
        outputs = []
        for stage, (features, context_token) in enumerate(self.encoder.forward_stages(x)):
            if stage not in self.out_indices:
                continue
            if self.out_type == "context_token":
                outputs.append(self.get_submodule(f"norm{stage}")(context_token).squeeze(1))
            else:
                features = self.get_submodule(f"norm{stage}")(features)
                outputs.append(to_channels_first(features).contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> EyeToy:
        """Set training mode, except for the frozen parts."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
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
        for part in parts:
            part.eval()
            part.requires_grad_(False)

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
    block of every stage but the first halves the map.
    """
    num_stages = len(arch.depths) if num_stages is None else num_stages
    num_blocks = sum(arch.depths)
    blocks: list[TransformerParams] = []
    channels = arch.embed_dims[0]
    for stage in range(num_stages):
        for block in range(arch.depths[stage]):
            blocks.append(
                msnat_params(
                    channels,
                    arch.embed_dims[stage],
                    arch.windows[stage],
                    arch.merging[stage],
                    arch.num_heads[stage],
                    scale_factor=0.5 if stage > 0 and block == 0 else 1.0,
                    dropout=dropout,
                    drop_path=drop_path_rate * len(blocks) / max(num_blocks - 1, 1),
                )
            )
            channels = arch.embed_dims[stage]
    stride = arch.stem_stride
    stem = ConvParams(
        kernel_size=2 * stride - 1 if stride > 1 else 3,
        stride=stride,
        padding=stride - 1 if stride > 1 else 1,
        in_channels=in_channels,
        out_channels=arch.embed_dims[0],
    )
    global_params = None
    if arch.global_layers and num_stages == len(arch.depths):
        global_params = GlobalAttentionTransformerParams(
            channels, arch.global_heads, arch.global_layers, arch.register_tokens, dropout
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
    lengths = {key: len(getattr(resolved, key)) for key in ("embed_dims", "depths", "num_heads", "windows", "merging")}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"every field of arch needs one entry per stage, got {lengths}")
    if min(resolved.depths) < 1:
        raise ValueError(f"every stage needs at least one block, got depths={resolved.depths}")
    return resolved


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _ascending_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    indices = tuple(index + num_stages if index < 0 else index for index in out_indices)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < num_stages:
        raise ValueError(f"out_indices must be ascending stages from 0 to {num_stages - 1}, got {tuple(out_indices)}")
    return indices
