"""Sizes of EyeToy: what makes one, those with names, and the encoder of each. Needs torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from eyetoy_mm.layers.checks import as_tuples, at_least, true_or_false, whole
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
        conv_groups: Groups of the convolutions that merge tokens, fewer where these do not divide the channels, or
            ``"depthwise"``.
        overlap: Whether merged tokens overlap.
        padding_mode: What merged tokens at the border see beyond the map: ``"zeros"``, or ``"replicate"`` for its
            border once more.
        stem_stride: Stride of the stem's map, 4 for dense prediction, 1 or 2 for small images.
        stem_channels: Channels of the stem's map where the first stage halves it, as every later stage halves the one
            before; None where the first stage goes on from the stem as it is.
        init: Initial weights, a name from :data:`~eyetoy_mm.encoder.INITS`.
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
    conv_groups: int | str = 32
    overlap: bool = False
    padding_mode: str = "zeros"
    stem_stride: int = 4
    stem_channels: int | None = None
    init: str = "xavier_normal"

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of the map of each stage, in pixels."""
        first = self.stem_stride * (1 if self.stem_channels is None else 2)
        return tuple(first * 2**stage for stage in range(len(self.depths)))


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
"""Named sizes: shallow is the model of EyeToy's first experiments, for small images (docs/architecture.md, section 16),
demo trains on two CPU cores, and tiny, small and base stand beside Swin-T, -S and -B."""


def resolve(arch: str | Mapping[str, Any]) -> Arch:
    """A size by name, by its numbers, or by the name of one and what differs from it.

    Args:
        arch: A name from :data:`ARCHS`, or a mapping with the fields of :class:`Arch`, where ``type`` may name the size
            that gives the rest.

    Raises:
        ValueError: An unknown name or field, a field that is missing, or numbers that are out of range.
    """
    if not isinstance(arch, str | Mapping):
        raise ValueError(f"arch must be one of {', '.join(ARCHS)}, or a dict with numbers, got {arch!r}")
    changes = {"type": arch} if isinstance(arch, str) else dict(arch)
    name = changes.pop("type", None)
    if name is not None and not (isinstance(name, str) and name in ARCHS):
        raise ValueError(f"unknown arch {name!r}; choose one of {', '.join(ARCHS)}, or give the numbers as a dict")
    known = [field.name for field in fields(Arch)]
    unknown = [key for key in changes if key not in known]
    if unknown:
        raise ValueError(f"arch has no field {', '.join(unknown)}; it has {', '.join(known)}")
    base = {} if name is None else dict(ARCHS[name].__dict__)
    missing = [key for key in ("embed_dims", "depths", "num_heads") if key not in base | changes]
    if missing:
        raise ValueError(f"arch without a type needs {', '.join(missing)}, got {changes}")
    resolved = Arch(**{key: as_tuples(value) for key, value in (base | changes).items()})
    stages = {key: getattr(resolved, key) for key in ("embed_dims", "depths", "num_heads", "windows", "merging")}
    lengths = {key: len(value) if isinstance(value, tuple) else 0 for key, value in stages.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"arch needs one entry per stage in every list, got {stages}")
    for key in ("windows", "merging"):
        if not all(isinstance(groups, tuple) for groups in stages[key]):
            raise ValueError(f"arch needs one number per head group of each stage, got {key}={stages[key]}")
    whole(**stages, global_heads=resolved.global_heads)
    true_or_false(**{key: getattr(resolved, key) for key in ("multi_scale", "use_context_token", "overlap")})
    at_least(1, depths=min(resolved.depths), stem_stride=resolved.stem_stride)
    if resolved.stem_channels is not None:
        at_least(1, stem_channels=resolved.stem_channels)
    at_least(0, global_layers=resolved.global_layers, register_tokens=resolved.register_tokens)
    return resolved


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
                    padding_mode=arch.padding_mode,
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
    return EncoderParams(stem, tuple(blocks), global_params, in_channels, channels, arch.init)
