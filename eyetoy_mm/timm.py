"""Models of timm and Hugging Face: ``import eyetoy_mm.timm``, then ``timm.create_model("eyetoy_tiny")``.

Needs torch and timm, with what timm brings; NAT and DiNAT need OpenMMLab beside it. The names of the weights are those
of mmpretrain's classifiers, ``backbone.`` and ``head.fc.``, so that what ``eyetoy publish`` writes of one loads:
``timm.create_model("eyetoy_tiny", checkpoint_path="eyetoy-tiny-0123abcd.safetensors")``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from eyetoy_mm.archs import ARCHS, resolve
from eyetoy_mm.archs import encoder_params as params_of
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.layers.conv import to_channels_first

OPENMMLAB = {
    "nat": ("NAT", ("mini", "tiny", "small", "base")),
    "dinat": ("DiNAT", ("mini", "tiny", "small", "base", "large")),
    "dinat_s": ("DiNAT_s", ("tiny", "small", "base", "large")),
}
"""Families that are OpenMMLab backbones alone: the class and the sizes of each."""


class _EyeToy(nn.Module):
    """The backbone :class:`eyetoy_mm.backbones.EyeToy` without OpenMMLab: of its parts those of the last map alone."""

    def __init__(self, arch: str, num_stages: int | None, in_channels: int, drop_path_rate: float) -> None:
        super().__init__()
        resolved = resolve(arch)
        num_stages = num_stages or len(resolved.depths)
        params = params_of(resolved, in_channels, drop_path_rate=drop_path_rate, num_stages=num_stages)
        self.encoder = Encoder2D(**params.__dict__)
        self.add_module(f"norm{num_stages - 1}", nn.LayerNorm(params.output_channels))
        self.channels, self.strides = resolved.embed_dims, resolved.strides
        self.has_token = params.global_attention_params is not None and resolved.use_context_token
        ends = accumulate(resolved.depths)
        self.stages = [f"encoder.transformer_stack.blocks.{end - 1}" for end in ends]
        self.groups = dict(
            stem=r"^backbone\.encoder\.initial_proj",
            blocks=[
                (r"^backbone\.encoder\.transformer_stack\.blocks\.(\d+)", None),
                (r"^backbone\.(?:encoder\.global_attention|norm\d)", (99999,)),
            ],
        )

    def forward_stages(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.encoder.forward_stages(x)

    @property
    def with_cp(self) -> bool:
        return self.encoder.transformer_stack.gradient_checkpointing

    @with_cp.setter
    def with_cp(self, enable: bool) -> None:
        self.encoder.transformer_stack.gradient_checkpointing = enable


def _openmmlab(family: str, arch: str, num_stages: int | None, in_channels: int, drop_path_rate: float) -> nn.Module:
    """The same of a backbone that OpenMMLab has."""
    from eyetoy_mm import backbones

    last = -1 if num_stages is None else num_stages - 1
    cls = getattr(backbones, OPENMMLAB[family][0])
    backbone = cls(arch, out_indices=(last,), in_channels=in_channels, drop_path_rate=drop_path_rate)
    count = len(backbone.arch.depths)
    backbone.channels = [backbone.arch.embed_dims * 2**stage for stage in range(count)]
    backbone.strides = [4 * 2**stage for stage in range(count)]
    backbone.has_token = False
    backbone.stages = [f"levels.{stage}" for stage in range(count)]
    backbone.groups = dict(
        stem=r"^backbone\.patch_embed",
        blocks=[
            (r"^backbone\.levels\.(\d+)\.blocks\.(\d+)", None),
            (r"^backbone\.levels\.(\d+)\.downsample", (99998,)),
            (r"^backbone\.norm\d", (99999,)),
        ],
    )
    return backbone


class Classifier(  # type: ignore[call-arg]  # where huggingface_hub is not installed
    nn.Module, PyTorchModelHubMixin, library_name="timm", license="apache-2.0", tags=["eyetoy"]
):
    """A backbone with a linear classifier, with what timm asks of its models.

    It is a model of ``huggingface_hub`` too: ``save_pretrained(folder)`` writes ``model.safetensors`` and
    ``config.json``, and ``Classifier.from_pretrained(folder)`` builds and loads it, all of it or an error.

    Args:
        name: Family and size, ``"eyetoy_tiny"``; :func:`timm.list_models` has them.
        num_classes: Classes; 0 leaves the classifier out.
        in_chans: Channels of the images.
        global_pool: ``"token"`` classifies the context token, ``"avg"`` the mean of the last map, ``""`` the token and
            every position by itself, as timm has it; None for the token where there is one. It is that of the training:
            the weights do not tell.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block.

    Raises:
        ValueError: An unknown name or way to pool, or one that the model has no token for.
        ModuleNotFoundError: The family needs OpenMMLab, which is not installed.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
        self.name, self.num_classes, self.in_chans = name, num_classes, in_chans
        self.drop_rate, self.drop_path_rate = drop_rate, drop_path_rate
        self.backbone = self._build(None)
        self.norm = f"norm{len(self.backbone.channels) - 1}"
        self.global_pool = ""
        self.feature_info = [
            dict(num_chs=channels, reduction=stride, module=f"backbone.{module}")
            for channels, stride, module in zip(self.backbone.channels, self.backbone.strides, self.backbone.stages)
        ]
        self.num_features = self.head_hidden_size = self.backbone.channels[-1]
        self.head: Any = nn.Sequential(OrderedDict(drop=nn.Dropout(drop_rate), fc=nn.Identity()))
        default = "token" if self.backbone.has_token else "avg"
        self.reset_classifier(num_classes, default if global_pool is None else global_pool)

    def _build(self, num_stages: int | None) -> Any:
        family, _, arch = self.name.rpartition("_")
        if family == "eyetoy":
            return _EyeToy(arch, num_stages, self.in_chans, self.drop_path_rate)
        return _openmmlab(family, arch, num_stages, self.in_chans, self.drop_path_rate)

    # --- timm's ---

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` -> normed positions of the last map ``(B, N, C)``, after the token if any."""
        *_, (features, token) = self.backbone.forward_stages(x)
        positions = features.flatten(1, -2)
        return self.backbone.get_submodule(self.norm)(
            torch.cat((token, positions), 1) if self.backbone.has_token else positions
        )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What :meth:`forward_features` gave -> scores ``(B, num_classes)``, or what they are made of, ``(B, C)``.

        Without pooling ``(B, N, num_classes)`` and ``(B, N, C)``.
        """
        if self.global_pool:
            x = x[:, 0] if self.global_pool == "token" else x[:, int(self.backbone.has_token) :].mean(1)
        return self.head.drop(x) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` of any size -> scores ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps ``(B, C_i, H_i, W_i)`` at the end of stages, without norms, alone or after the last of all."""
        if norm or output_fmt != "NCHW":
            raise ValueError(f"maps are NCHW and without norms here, asked for {output_fmt=} and {norm=}")
        chosen = self._stages(indices)
        maps, final = [], None
        for stage, (features, _) in enumerate(self.backbone.forward_stages(x)):
            final = to_channels_first(features).contiguous()
            if stage in chosen:
                maps.append(final)
            if stop_early and stage == max(chosen):
                break
        return maps if intermediates_only else (final, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out the stages after the last that is asked for, and what follows them; returns the indices."""
        chosen = self._stages(indices)
        last = max(chosen)
        if last < len(self.feature_info) - 1:
            whole, weights = self.backbone, self.backbone.state_dict()
            self.backbone = self._build(last + 1).to(next(whole.parameters())).train(whole.training)
            self.backbone.with_cp = whole.with_cp
            kept = self.backbone.state_dict()
            self.backbone.load_state_dict(kept | {key: x for key, x in weights.items() if key in kept})
            self.norm = f"norm{last}"
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm:
            setattr(self.backbone, self.norm, nn.Identity())
        if prune_head or last < len(self.feature_info) - 1:
            self.reset_classifier(0, "avg" if self.global_pool == "token" and not self.backbone.has_token else None)
        return chosen

    def _stages(self, indices: int | Sequence[int] | None) -> list[int]:
        """Stages as timm names them: the last ones by their number, all for None, or each, from the end if negative."""
        count = len(self.feature_info)
        chosen = list(range(count))
        if indices is None:
            return chosen
        wanted = range(-indices, 0) if isinstance(indices, int) else indices
        if not wanted or not all(-count <= index < count for index in wanted):
            raise ValueError(f"{self.name} has the stages 0 to {count - 1}, asked for {indices}")
        return [chosen[index] for index in wanted]

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh linear layer for other classes, or none for 0; None keeps the way to pool."""
        global_pool = self.global_pool if global_pool is None else global_pool
        pools = ("token", "avg", "") if self.backbone.has_token else ("avg", "")
        if global_pool not in pools:
            raise ValueError(f"global_pool must be {' or '.join(pools[:-1])} for {self.name}, got {global_pool!r}")
        self.num_classes, self.global_pool = num_classes, global_pool
        device = next(self.backbone.parameters()).device
        self.head.fc = nn.Linear(self.num_features, num_classes, device=device) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of the names of each depth, for layer-wise learning rates."""
        return self.backbone.groups

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass, for less memory."""
        self.backbone.with_cp = enable

    # --- Hugging Face's ---

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **kwargs: Any) -> Any:
        """Write the weights, and the arguments as they are now: classes may have been reset.

        timm reads the folder as well: ``timm.create_model("local-dir:my_model", pretrained=True)``, or ``hf-hub:``.
        """
        arguments = ("name", "num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate")
        config = config or {argument: getattr(self, argument) for argument in arguments} | self._config_of_timm()
        return super().save_pretrained(save_directory, config=config, **kwargs)

    def _config_of_timm(self) -> dict[str, Any]:
        defaults, own = default_cfgs[self.name], getattr(self, "pretrained_cfg", {})
        prepares = ("crop_pct", "interpolation", "mean", "std")  # other entries may name where weights came from
        cfg = defaults | {key: own[key] for key in prepares if own.get(key) is not None}
        cfg |= dict(num_classes=self.num_classes, input_size=(self.in_chans, *defaults["input_size"][1:]))
        model_args = dict(in_chans=self.in_chans, global_pool=self.global_pool)
        return dict(architecture=self.name, num_features=self.num_features, pretrained_cfg=cfg, model_args=model_args)

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Classifier:
        return super()._from_pretrained(strict=strict, **kwargs)  # the mixin's default loads what fits


# --- Names ------------------------------------------------------------------------------------------------------------

NAMES = (
    *(f"eyetoy_{arch}" for arch in ARCHS),
    *(f"{family}_{arch}" for family, (_, archs) in OPENMMLAB.items() for arch in archs),
)
"""Of all models."""


def _default_cfg(name: str) -> dict[str, Any]:
    """No weights, for none are published; how images are prepared, and the layers that follow channels and classes."""
    stems = {"eyetoy": "encoder.initial_proj", "nat": "patch_embed.proj.0", "dinat": "patch_embed.proj.0"}
    return dict(
        url="",
        num_classes=1000,
        input_size=(3, 224, 224),
        crop_pct=0.875,
        interpolation="bicubic",
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv=f"backbone.{stems.get(name.rpartition('_')[0], 'patch_embed.proj')}",
        classifier="head.fc",
        license="apache-2.0",
    )


default_cfgs = {name: _default_cfg(name) for name in NAMES}


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """A function with the name of a model, as timm registers them."""
    stages = len(ARCHS[name.removeprefix("eyetoy_")].depths) if name.startswith("eyetoy_") else 4

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = dict(out_indices=tuple(range(stages)), feature_cls="getter")
        return build_model_with_cfg(Classifier, name, pretrained, feature_cfg=features, name=name, **kwargs)

    create.__name__ = create.__qualname__ = name
    return create


for _name in NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
