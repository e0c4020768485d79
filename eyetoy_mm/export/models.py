"""Models as they go into a file: RGB images of 0..255 in, what a user wants out; and what the toolbox says instead."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.preparing import Preparation, kept_numbers, replace_pools
from eyetoy_mm.registry import type_name

TOLERANCE = 1e-3  # of the largest value


class Agreement(NamedTuple):
    """How outputs of a file compare with the toolbox' own."""

    holds: bool
    text: str


class ExportModel(nn.Module):
    """A model that takes images alone, ready to be exported; the original stays as it is.

    Args:
        predictor: The model, opened on a CPU.

    Attributes:
        task: What it does, for the file.
        outputs: Name of each output, with its meaning.
        any_batch: Whether the file takes any number of images at once.
        least_score: Name of the buffer with the score that is needed to be found; None where any image has results.
        remarks: What a user must know of this file, a sentence each.
        kept_numbers: Why there is no graph for any size and batch, if there is none.
        usage: Lines of a program after the one that runs the file.
    """

    task: str
    outputs: dict[str, str]
    any_batch = True
    least_score: str | None = None
    usage = ""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.remarks: list[str] = []
        self.order = predictor.preprocessing.channel_order
        self._original = [predictor.model]  # in a list: not a part of what is exported
        self.prepare = Preparation(predictor.model.data_preprocessor, self.order)
        self.model = copy.deepcopy(predictor.model)
        replace_pools(self.model)
        self.kept_numbers = kept_numbers(self.model)
        if self.kept_numbers is not None:
            self.any_batch = False
            self.remarks.append(f"One image at a time, of this size: {self.kept_numbers}.")
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, 3, H, W)``, RGB, 0..255, to the tensors of :attr:`outputs`."""
        raise NotImplementedError

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """Compare the outputs of a file with what the toolbox itself gives for the same images."""
        raise NotImplementedError

    @contextmanager
    def finding_nothing(self) -> Iterator[None]:
        """In this context the toolbox' model finds nothing in any image."""
        raise NotImplementedError
        yield

    def conclude(self) -> None:
        """Called after all comparisons.

        Raises:
            UserError: They agree, and do not show anything.
        """

    def traced_size(self, size: tuple[int, int] | None) -> tuple[int, int] | None:
        """The size that a graph is made for: none for any size, and where one for any size serves this one too.

        Raises:
            UserError: There is no graph for any size.
        """
        if self.kept_numbers is not None and size is None:
            raise UserError(
                f"this model has no graph for any image size: {self.kept_numbers}, which a graph keeps as they are for "
                "one size; --size H,W exports it for one"
            )
        return None if isinstance(self.original.backbone, StagedBackbone) else size

    @property
    def original(self) -> Any:
        """The toolbox' model."""
        return self._original[0]

    def loaded(self, images: Tensor, sample_type: type[BaseDataElement]) -> dict[str, Any]:
        """Images as a data loader gives them to the original, with data samples of this type."""
        size = tuple(images.shape[2:])
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), img_path="", img_id=0)
        images = images.flip(1) if self.order == "bgr" else images
        return dict(inputs=list(images), data_samples=[sample_type(metainfo=dict(meta)) for _ in images])


class ExportBackbone(ExportModel):
    """The backbone with what comes before it; its maps leave as the neck or head of the model gets them."""

    task = "features"

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.model = self.model.backbone
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, 64, 64))
        self.outputs = {f"feature{i}": f"{tuple(x.shape)} for an image of 64 x 64" for i, x in enumerate(maps)}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> the outputs of the backbone."""
        return tuple(self.model(self.prepare(images)))

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By the largest difference of each map."""
        with torch.no_grad():
            data = self.original.data_preprocessor(self.loaded(images, BaseDataElement))
            expected = self.original.backbone(data["inputs"])
        return agreement(outputs, expected)


def agreement(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> Agreement:
    """Whether tensors have the shapes that they should, and differ by :data:`TOLERANCE` of the largest at most."""
    shapes = [tuple(x.shape) for x in actual], [tuple(x.shape) for x in expected]
    if shapes[0] != shapes[1]:
        return Agreement(False, f"shapes {shapes[0]} instead of {shapes[1]}")
    errors = [((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() for a, b in zip(actual, expected)]
    finite = all(bool(x.isfinite().all()) for x in actual)
    return Agreement(finite and max(errors) <= TOLERANCE, f"largest difference {max(errors):.1e} of the largest value")


def keeps(instance: Any, base: type, *names: str) -> bool:
    """Whether an instance of a class has the class' own methods of these names, no others in their place."""
    return isinstance(instance, base) and all(getattr(type(instance), name) is getattr(base, name) for name in names)


def make_export_model(predictor: Predictor, scope: str, part: str) -> ExportModel:
    """The model of a config as it is exported.

    Args:
        predictor: The model.
        scope: Of its config: ``mmseg``, ``mmdet`` or ``mmpretrain``.
        part: ``"whole"`` or ``"backbone"``.

    Raises:
        UserError: It takes other images than RGB of 0..255, or is of a kind that is not exported whole.
    """
    backbone = predictor.model.backbone
    channels = getattr(backbone, "in_channels", 3)
    if channels != 3:
        raise UserError(f"the backbone takes {channels} channels; exported models take RGB images, of 3")
    if any(type_name(step) == "Normalize" for step in predictor.preprocessing.after_loading):
        raise UserError(
            "the test pipeline normalises images (Normalize), and a file takes them as they are: give mean, std and "
            "the order of channels to model.data_preprocessor, and leave that step out of all pipelines"
        )
    if part == "backbone":
        return ExportBackbone(predictor)
    if scope == "mmseg":
        from eyetoy_mm.export.segmentors import ExportSegmentor

        return ExportSegmentor(predictor)
    if scope == "mmpretrain":
        from eyetoy_mm.export.classifiers import ExportClassifier

        return ExportClassifier(predictor)
    from eyetoy_mm.export.detectors import ExportRetinaNet
    from eyetoy_mm.export.two_stage import ExportTwoStage

    for kind in (ExportRetinaNet, ExportTwoStage):
        if kind.takes(predictor.model):
            return kind(predictor)
    raise UserError(
        f"this model, {type(predictor.model).__name__}, is not exported whole: of detectors, RetinaNet, Faster R-CNN, "
        "Mask R-CNN and Cascade R-CNN with mmdet's own heads are; --part backbone exports its backbone"
    )
