"""What every backbone of ours is to the toolboxes: stages that give maps, and what trainers ask of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from typing_extensions import Self

from eyetoy_mm import state_dicts
from eyetoy_mm.backbones.pretrained import strict
from eyetoy_mm.layers.checks import is_whole, whole
from eyetoy_mm.layers.conv import to_channels_first
from eyetoy_mm.state_dicts import State

InitCfg = dict[str, Any] | list[dict[str, Any]] | None
"""What mmengine takes as ``init_cfg``."""


class StagedBackbone(BaseModule):
    """A backbone with a map at the end of each stage; those of ``out_indices`` leave, each through a norm of its own.

    A subclass hands its channels and strides to this constructor, builds the stem and the stages up to the last of
    ``out_indices`` (:attr:`built_stages`), and ends with :meth:`finish`. It has ``stem_module``, :meth:`stage_modules`
    and :meth:`forward_stages`.

    Args:
        channels: Channels of the map of each stage.
        strides: Stride of the map of each stage, in pixels.
        out_indices: Stages whose maps are returned, in ascending order; negative ones count from the last. None takes
            every stage for maps, and the last one for classifiers.
        out_type: One of ``OUT_TYPES``: ``"featmap"`` for the maps; for classifiers ``"avg_featmap"``, their means over
            the positions, or ``"context_token"`` where there is one.
        frozen_stages: -1 freezes nothing, 0 the stem, ``n`` the stem and the first ``n`` stages; frozen parts stay in
            evaluation mode.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` takes everything or nothing, see
            :mod:`eyetoy_mm.backbones.pretrained`.
        in_channels: Channels of the images.

    Attributes:
        out_channels: Channels of each output, in the order of ``out_indices``.
        out_strides: Stride of the map behind each output.

    Raises:
        ValueError: An out type that it does not have, an index or number of stages out of range, or an ``init_cfg`` of
            another form.
    """

    OUT_TYPES: tuple[str, ...] = ("featmap", "avg_featmap")
    _version = 1
    """Of the names in a state dict. A change of names raises it, and :meth:`migrate` brings older ones along."""
    stem_module: str
    """Name of the module before the first stage."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        out_indices: Sequence[int] | None = None,
        out_type: str = "featmap",
        frozen_stages: int = -1,
        init_cfg: InitCfg = None,
        in_channels: int = 3,
    ) -> None:
        strict(init_cfg)  # refuses what init_weights cannot use, before anything is built
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.num_stages = in_channels, len(channels)
        if out_type not in self.OUT_TYPES:
            raise ValueError(f"out_type must be one of {', '.join(self.OUT_TYPES)}, got {out_type!r}")
        if out_indices is None:
            out_indices = range(self.num_stages) if out_type == "featmap" else (self.num_stages - 1,)
        self.out_indices = _ascending(out_indices, self.num_stages)
        whole(frozen_stages=frozen_stages)
        if not -1 <= frozen_stages <= self.num_stages:
            raise ValueError(f"frozen_stages must be between -1 and {self.num_stages}, got {frozen_stages}")
        self.out_type, self.frozen_stages = out_type, frozen_stages
        self.out_channels = tuple(channels[stage] for stage in self.out_indices)
        self.out_strides = tuple(strides[stage] for stage in self.out_indices)
        self.built_stages = range(self.out_indices[-1] + 1)

    # --- What a subclass says ---

    def forward_stages(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the map ``(B, H, W, C)`` at the end of each stage, and its context token ``(B, 1, C)`` or None.

        Args:
            x: Images ``(B, in_channels, H, W)``.
        """
        raise NotImplementedError

    def stage_modules(self, stage: int) -> list[str]:
        """Names of the modules that make a stage, in the order of their depth; also of a stage that is not built."""
        raise NotImplementedError

    def depth_modules(self) -> list[list[str]]:
        """Names of the modules at each depth, the stem's first; a module of a stage each where nothing else is said."""
        return [[self.stem_module], *([name] for stage in self.built_stages for name in self.stage_modules(stage))]

    def modules_left_out(self) -> list[str]:
        """Names of modules that a file may have and the backbone has not, because of its ``out_indices``."""
        later = range(self.built_stages.stop, self.num_stages)
        norms = [f"norm{stage}" for stage in range(self.num_stages) if stage not in self.out_indices]
        return norms + [name for stage in later for name in self.stage_modules(stage)]

    @classmethod
    def split(cls, state: State, prefix: str | None = None) -> tuple[State, State]:
        """The backbone's tensors in a file, under its own names, and the rest; see :func:`.state_dicts.split`."""
        return state_dicts.split(state, prefix)

    @classmethod
    def migrate(cls, own: State, version: int) -> State:
        """Tensors that a backbone of an earlier ``_version`` saved, as this one names them.

        Every way to load goes through it. Files without a version count as the first, so new names must not be renamed.

        Args:
            own: Tensors by the backbone's own names.
            version: The ``_version`` that they were saved with.
        """
        return own

    # --- What follows from it ---

    def finish(self) -> None:
        """Add the norms of the maps that leave, and freeze; the last step of a subclass' constructor."""
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: Images ``(B, in_channels, H, W)`` of any size.

        Returns:
            One map ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` per out index, in memory as the images
            (contiguous or channels_last), or its mean ``(B, C_i)``; or the context token ``(B, C)`` alone.

        Raises:
            TypeError: No tensor, or one of whole numbers.
            ValueError: Images of another shape, or of other channels than the backbone was built for.
        """
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):  # sizes are symbols there
            check_images(x, self.in_channels)
        # the layout of the images; as the maps lie, they are channels_last
        is_channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        outputs = []
        for stage, (features, context_token) in enumerate(self.forward_stages(x)):
            if stage not in self.out_indices:
                continue
            norm = self.get_submodule(f"norm{stage}")
            if self.out_type == "featmap":
                outputs.append(to_channels_first(norm(features)).contiguous(memory_format=layout))
            elif self.out_type == "avg_featmap":
                outputs.append(norm(features).flatten(1, -2).mean(1))
            else:
                outputs.append(norm(context_token).squeeze(1))
        return tuple(outputs)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for the frozen parts."""
        super().train(mode)
        self._freeze()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What stands before the backbone's own names, e.g. ``"backbone."``.

        Returns:
            The depth (0 for the stem, 1 for the first block, ...) and the number of depths, with one for what follows
            the backbone.
        """
        depths = self.depth_modules()
        if param_name.startswith(prefix):
            name = param_name.removeprefix(prefix)
            for depth, modules in enumerate(depths):
                if any(name.startswith(f"{module}.") for module in modules):
                    return depth, len(depths) + 1
        return len(depths), len(depths) + 1

    def init_weights(self) -> None:
        """Initialise from ``init_cfg``; the constructor has done what a model without it needs.

        Raises:
            CheckpointError: The checkpoint does not fit; the message names keys.
            ValueError: The weights are on meta.
        """
        if any(x.is_meta for x in self.parameters()):
            raise ValueError(
                f"{type(self).__name__} was built on meta, where weights have no values to initialise: build it on a "
                "device with memory, such as cpu"
            )
        self.init_cfg: list[dict[str, Any]] = strict(self.init_cfg)
        super().init_weights()

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        names = [self.stem_module]
        for stage in self.built_stages[: self.frozen_stages]:
            names += self.stage_modules(stage) + ([f"norm{stage}"] if stage in self.out_indices else [])
        for name in names:
            self.get_submodule(name).eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict: State, prefix: str, local_metadata: dict[str, Any], *args: Any) -> None:
        own = {key.removeprefix(prefix): state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
        own = self.migrate(own, local_metadata.get("version") or 1)
        state_dict.update({prefix + key: x for key, x in own.items()})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def check_images(x: Any, in_channels: int) -> None:
    """Refuse what is no batch of images, before a layer fails on it in words of its own.

    Raises:
        TypeError: No tensor, or one of whole numbers.
        ValueError: Not of the shape ``(B, in_channels, H, W)`` with a height and a width of at least 1.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a tensor (B, {in_channels}, H, W), got {type(x).__name__}")
    if x.dim() != 4:
        raise ValueError(f"images must be a batch (B, {in_channels}, H, W), got a tensor of shape {tuple(x.shape)}")
    if x.shape[1] != in_channels:
        raise ValueError(
            f"images were expected to have {in_channels} channels (in_channels), got {x.shape[1]} in a tensor of shape "
            f"{tuple(x.shape)}"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"images must have a height and a width of at least 1, got a tensor of shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(
            f"images must be of floating point, got {x.dtype}: normalise them first, as a data preprocessor does"
        )


def _ascending(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    if not isinstance(out_indices, Sequence) or not all(map(is_whole, out_indices)):
        raise ValueError(
            f"out_indices must be a list of ascending stages from 0 to {num_stages - 1}, got {out_indices!r}"
        )
    indices = tuple(int(index + num_stages if index < 0 else index) for index in out_indices)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < num_stages:
        raise ValueError(f"out_indices must be ascending stages from 0 to {num_stages - 1}, got {tuple(out_indices)}")
    return indices
