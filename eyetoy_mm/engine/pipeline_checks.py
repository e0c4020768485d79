"""The order of steps in pipelines of training: annotations that are loaded when their image has been moved already."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_structure import datasets_in
from eyetoy_mm.registry import type_name

# Steps after which a pixel is at another place; in evaluation, where truth is of the photo as it is, this is meant.
_MOVING = {
    *("RandomFlip", "RandomCrop", "CenterCrop", "MinIoURandomCrop", "RandomResizedCrop", "RandomCenterCropPad"),
    *("RandomAffine", "RandomRotate", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Expand"),
}
# mmseg compares a map with its mask at the size of the mask, mmdet takes boxes as they are.
_RESIZING = {"Resize", "RandomResize", "RandomChoiceResize", "FixScaleResize", "ResizeShortestEdge"}


def late_annotation_findings(config: Config, toolbox: str) -> Iterator[Finding]:
    """Pipelines of training in which boxes or masks stay where their image was.

    Args:
        config: The config.
        toolbox: ``mmdet`` or ``mmseg``.
    """
    moving = _MOVING | (_RESIZING if toolbox == "mmdet" else set())
    loader = config.get("train_dataloader") or {}
    for key, dataset in datasets_in("train_dataloader.dataset", loader.get("dataset")):
        names = [type_name(step) if isinstance(step, dict) else "" for step in dataset.get("pipeline") or ()]
        loads = names.index("LoadAnnotations") if "LoadAnnotations" in names else 0
        moved = next((name for name in names[:loads] if name in moving), None)
        if moved:
            message = (
                f"LoadAnnotations comes after {moved}, which moves the image: boxes and masks stay where it was. Put "
                "LoadAnnotations behind LoadImageFromFile"
            )
            yield Finding(f"{key}.pipeline", message)
