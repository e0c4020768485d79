"""Parameters and FLOPs of backbones, their parts, and whole detectors and segmentors, as markdown tables."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from eyetoy_mm.archs import ARCHS
from eyetoy_mm.backbones.eyetoy import EyeToy
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.engine.config import find_config, load_config
from eyetoy_mm.engine.preprocessing import test_pipeline
from eyetoy_mm.errors import UserError
from eyetoy_mm.params import DEFAULT_IMG_ENCODER_PARAMS
from eyetoy_mm.registry import MODELS
from eyetoy_mm.tables import markdown_table

FAMILY = ("default", *ARCHS)  # DEFAULT_IMG_ENCODER_PARAMS, and the named sizes
_SIZES = {"mmdet": (800, 1280), "mmseg": (512, 2048)}  # heights and widths
_MAPS = dict(out_indices=(0, 1, 2, 3))  # as for dense prediction
PEERS: dict[str, dict] = {
    "NAT-M": dict(type="eyetoy_mm.NAT", arch="mini"),
    "NAT-T": dict(type="eyetoy_mm.NAT", arch="tiny"),
    "NAT-S": dict(type="eyetoy_mm.NAT", arch="small"),
    "NAT-B": dict(type="eyetoy_mm.NAT", arch="base"),
    "DiNAT-M": dict(type="eyetoy_mm.DiNAT", arch="mini"),
    "DiNAT-T": dict(type="eyetoy_mm.DiNAT", arch="tiny"),
    "DiNAT-S": dict(type="eyetoy_mm.DiNAT", arch="small"),
    "DiNAT-B": dict(type="eyetoy_mm.DiNAT", arch="base"),
    "DiNAT-L": dict(type="eyetoy_mm.DiNAT", arch="large"),
    "DiNAT-L-11x11": dict(type="eyetoy_mm.DiNAT", arch="large", kernel_size=11),
    "DiNAT_s-T": dict(type="eyetoy_mm.DiNAT_s", arch="tiny"),
    "DiNAT_s-S": dict(type="eyetoy_mm.DiNAT_s", arch="small"),
    "DiNAT_s-B": dict(type="eyetoy_mm.DiNAT_s", arch="base"),
    "DiNAT_s-L": dict(type="eyetoy_mm.DiNAT_s", arch="large"),
    "Swin-T": dict(type="mmpretrain.SwinTransformer", arch="tiny", pad_small_map=True, **_MAPS),
    "Swin-S": dict(type="mmpretrain.SwinTransformer", arch="small", pad_small_map=True, **_MAPS),
    "Swin-B": dict(type="mmpretrain.SwinTransformer", arch="base", pad_small_map=True, **_MAPS),
    "ConvNeXt-T": dict(type="mmpretrain.ConvNeXt", arch="tiny", gap_before_final_norm=False, **_MAPS),
    "ConvNeXt-S": dict(type="mmpretrain.ConvNeXt", arch="small", gap_before_final_norm=False, **_MAPS),
    "ConvNeXt-B": dict(type="mmpretrain.ConvNeXt", arch="base", gap_before_final_norm=False, **_MAPS),
    "DeiT-S": dict(type="mmpretrain.VisionTransformer", arch="deit-small", img_size=224, patch_size=16),
    "DeiT-B": dict(type="mmpretrain.VisionTransformer", arch="deit-base", img_size=224, patch_size=16),
}

Figures = tuple[int, ...]  # parameters, then FLOPs at each size


def backbone_tables(names: Iterable[str] | None, sizes: Iterable[int]) -> tuple[str, list[str]]:
    """Tables of backbones and of their parts.

    Args:
        names: Of :data:`FAMILY` and :data:`PEERS`; all when None.
        sizes: Sides of the image in pixels.

    Returns:
        The tables, and the names of the models whose package does not have them.

    Raises:
        UserError: There is no such name.
    """
    known = [*FAMILY, *PEERS]
    names, sizes = known if names is None else list(names), list(sizes)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"there is no model {', '.join(unknown)}; the models are {', '.join(known)}")
    figures, missing = {}, []
    for name in names:
        model = build(name)
        if model is None:
            missing.append(name)
        else:
            figures[name] = measure(model, sizes)
    return "\n".join(tables(figures, sizes)), missing


def config_table(configs: Iterable[str | Path]) -> str:
    """A table of whole detectors and segmentors, a row for each config."""
    return markdown_table(["config", "image", "parameters", "FLOPs"], map(measure_config, configs))


def build(name: str) -> nn.Module | None:
    """Build a model, or None where the package that it is from does not have it."""
    if name == "default":
        return Encoder2D(**DEFAULT_IMG_ENCODER_PARAMS.__dict__)
    if name in ARCHS:
        return EyeToy(arch=name)
    if find_spec("mmpretrain") is not None:
        import mmpretrain.models  # noqa: F401 - registers its backbones
    return MODELS.build(PEERS[name]) if MODELS.get(PEERS[name]["type"]) is not None else None


def parts(model: nn.Module) -> dict[str, list[str]]:
    """Names of the modules behind each part of a model that has stages; modules that it does not have are no harm."""
    for path, encoder in model.named_modules():
        if isinstance(encoder, Encoder2D):
            prefix = f"{path}." if path else ""
            blocks = [[f"{prefix}transformer_stack.blocks.{i}" for i in s] for s in encoder.transformer_stack.stages]
            stages = {f"stage {i}": [*names, f"norm{i - 1}"] for i, names in enumerate(blocks, start=1)}
            return {"stem": [f"{prefix}initial_proj"], **stages, "global stack": [f"{prefix}global_attention"]}
    modules_of = {"stem": ["patch_embed", "downsample_layers.0"]}
    for i, _ in enumerate(getattr(model, "stages", ())):
        modules_of[f"stage {i + 1}"] = [f"stages.{i}", f"norm{i}", *([f"downsample_layers.{i}"] if i else [])]
    return modules_of if len(modules_of) > 1 else {}


def measure(model: nn.Module, sizes: Iterable[int]) -> dict[str, Figures]:
    """Figures of the whole model, under ``"total"``, and of its parts."""
    model.eval()
    modules = {"total": [""], **parts(model)}
    counts = [parameter_count(model)]
    for size in sizes:
        analyzer = FlopAnalyzer(model, torch.zeros(1, 3, size, size))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        with torch.no_grad():
            counts.append(analyzer.by_module())
    return {part: tuple(sum(count[name] for name in names) for count in counts) for part, names in modules.items()}


class Whole(nn.Module):
    """What a detector, segmentor or classifier computes for an image, as the field counts it.

    A detector has 1,000 boxes, of which 100 get a mask where it has a head for those; a segmentor is without its
    auxiliary head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Every output of the heads for an image ``(1, 3, H, W)``, so that a trace leaves none out."""
        maps = self.model.extract_feat(x)
        if hasattr(self.model, "head"):
            return (self.model.head(maps),)
        if hasattr(self.model, "decode_head"):
            return (self.model.decode_head(maps),)
        if not hasattr(self.model, "roi_head"):
            return tuple(output for outputs in self.model.bbox_head(maps) for output in outputs)
        outputs_of_heads = [output for outputs in self.model.rpn_head(maps) for output in outputs]
        head, boxes = self.model.roi_head, torch.tensor([[0.0, 8.0, 8.0, 64.0, 64.0]]).repeat(1000, 1)
        stages: list[tuple[int, ...]] = [(i,) for i in range(getattr(head, "num_stages", 0))]
        for stage in stages or [()]:  # a cascade, or a single head
            results = head._bbox_forward(*stage, maps, boxes)
            outputs_of_heads += [results["cls_score"], results["bbox_pred"]]
            if head.with_mask:
                outputs_of_heads.append(head._mask_forward(*stage, maps, boxes[:100])["mask_preds"])
        return tuple(outputs_of_heads)


def measure_config(path: str | Path) -> tuple[str, ...]:
    """Name, size of the image, parameters and FLOPs of a detector's or segmentor's config.

    Raises:
        UserError: It is of neither.
    """
    config = load_config(path)
    if config.default_scope not in _SIZES:
        raise UserError(f"{path} is for {config.default_scope}; --configs takes detectors and segmentors")
    height, width = usual_size(config)
    return find_config(path).stem, f"{width}x{height}", *_cells(complexity(config, height, width))


def usual_size(config: Config) -> tuple[int, int]:
    """Height and width at which the field counts the FLOPs of a config: of a classifier, those of its evaluation."""
    if config.default_scope in _SIZES:
        return _SIZES[config.default_scope]
    sizes = [step[key] for step in test_pipeline(config) for key in ("crop_size", "scale") if key in step]
    size = sizes[-1] if sizes else 32  # CIFAR's images, which nothing resizes
    return (size, size) if isinstance(size, int) else (size[1], size[0])


def complexity(config: Config, height: int, width: int) -> tuple[int, int]:
    """Parameters of a config's model, and the FLOPs of :class:`Whole` for one image of a size."""
    init_default_scope(config.default_scope)
    model = MODELS.build(copy.deepcopy(config.model)).eval()
    analyzer = FlopAnalyzer(Whole(model), torch.zeros(1, 3, height, width))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        return parameter_count(model)[""], int(analyzer.total())


def tables(figures: dict[str, dict[str, Figures]], sizes: Iterable[int]) -> Iterator[str]:
    """Lines of the table of whole models and, where there are any, of the table of their parts."""
    columns = ["parameters", *(f"FLOPs at {size}" for size in sizes)]
    yield markdown_table(["model", *columns], ([name, *_cells(by_part["total"])] for name, by_part in figures.items()))
    names = list(dict.fromkeys(part for by_part in figures.values() for part in by_part if part != "total"))
    if names:
        yield from ("", f"Of each part: {', '.join(columns)}.", "")
        staged = {name: by_part for name, by_part in figures.items() if len(by_part) > 1}
        rows = (
            [name, *(" / ".join(_cells(by_part[part])) if any(by_part.get(part, ())) else "-" for part in names)]
            for name, by_part in staged.items()
        )
        yield markdown_table(["model", *names], rows)


def _cells(figures: Figures) -> list[str]:
    parameters, *flops = figures
    return [f"{parameters / 1e6:.2f} M", *(f"{count / 1e9:.2f} G" for count in flops)]
