"""One way to predict and paint an image with a model of mmseg, mmdet or mmpretrain."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement

from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.painting import check_scope, make_painter
from eyetoy_mm.engine.preprocessing import Preprocessing, test_dataset
from eyetoy_mm.engine.test_time import augment, check_can_be_merged, merging_model
from eyetoy_mm.errors import UserError


class Predictor:
    """A trained model that predicts images as its config's test data loader feeds it, and paints what it predicts.

    Args:
        config: A config of mmseg, mmdet or mmpretrain; it stays as it is.
        checkpoint: Its weights.
        device: A torch device.
        score_threshold: Detections with a lower score are not painted.
        tta: Augment at test time, as ``tta_model`` and ``tta_pipeline`` of the config say.

    Attributes:
        scope: The toolbox.
        model: The model, in evaluation mode.
        preprocessing: What is done to an image before the model sees it.
        dataset_meta: Names (``classes``) and colours (``palette``) of the classes, as far as they are known.
        painter: Paints predictions.
    """

    def __init__(
        self, config: Config, checkpoint: str, device: str, score_threshold: float = 0.3, tta: bool = False
    ) -> None:
        check_config(config)
        self.scope: str = config.default_scope
        init_default_scope(self.scope)
        model = copy.deepcopy(config.model)  # DETRs write into theirs, and refuse it the next time
        model.setdefault("data_preprocessor", copy.deepcopy(config.get("data_preprocessor")))  # as the Runner does
        self.model: Any = MODELS.build(model)
        check_fits(self.model, checkpoint)
        meta = load_checkpoint(self.model, checkpoint, map_location="cpu", logger="silent").get("meta") or {}
        self.model.to(device).eval()
        self._tested = self.model
        if tta:
            config = copy.deepcopy(config)
            augment(config)
            check_can_be_merged(self.model)
            self._tested = MODELS.build({**merging_model(config), "module": self.model}).eval()
        self.preprocessing = Preprocessing(config)
        self.dataset_meta = _dataset_meta(meta, config, self.model)
        self.painter = make_painter(self.scope, self.dataset_meta, score_threshold)

    @property
    def has_masks(self) -> bool:
        """Whether objects that it detects have masks."""
        return bool(getattr(self.model, "with_mask", False)) or hasattr(self.model, "panoptic_fusion_head")

    def read(self, path: str | Path) -> np.ndarray:
        """An image as the model was tested with it: see :meth:`~eyetoy_mm.engine.preprocessing.Preprocessing.read`."""
        return self.preprocessing.read(path)

    def predict(self, image: np.ndarray) -> BaseDataElement:
        """The toolbox' data sample for one image, as :meth:`read` gives it."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        """The toolbox' data samples for some images; those that are of one size when prepared go through together.

        Padding to a common size would change what is predicted.
        """
        prepared = [self.preprocessing.prepare(image) for image in images]
        groups: dict[Any, list[int]] = {}
        for index, one in enumerate(prepared):
            inputs = one["inputs"]
            shapes = [tuple(view.shape) for view in (inputs if isinstance(inputs, list) else [inputs])]
            groups.setdefault(tuple(shapes), []).append(index)
        samples: dict[int, BaseDataElement] = {}
        with torch.no_grad():
            for group in groups.values():
                found = self._tested.test_step(pseudo_collate([prepared[index] for index in group]))
                samples.update(zip(group, found))
        return [samples[index] for index in range(len(prepared))]

    def paint(self, image: np.ndarray, sample: BaseDataElement, legend: bool = False) -> np.ndarray:
        """The prediction in ``sample``, painted over the image; RGB of 8 bits.

        Args:
            image: As :meth:`read` gives it.
            sample: The toolbox' data sample.
            legend: Put the classes of a label map on its right.
        """
        return self.painter.paint(self.preprocessing.picture(image), sample, legend=legend)


def _dataset_meta(meta: dict, config: Config, model: Any) -> dict[str, Any]:
    """Names and colours of the classes: the checkpoint's, else the test set's; labels without a name are numbers."""
    found = meta.get("dataset_meta") or {"classes": meta.get("CLASSES"), "palette": meta.get("PALETTE")}
    dataset = test_dataset(config)
    if not found.get("classes") and dataset is not None:
        kind = dataset["type"]
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        found = {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    names = list(found.get("classes") or ())
    counts = [count for module in model.modules() if isinstance(count := getattr(module, "num_classes", None), int)]
    names += map(str, range(len(names), max(counts, default=0)))
    return {**found, "classes": tuple(names)}


def open_predictor(
    config: Config, checkpoint: str, device: str | None = None, score_threshold: float = 0.3, tta: bool = False
) -> Predictor:
    """Open a model for inference.

    Args:
        config: A config of mmseg, mmdet or mmpretrain.
        checkpoint: Its weights.
        device: A torch device; the accelerator if there is one, else the CPU, when None.
        score_threshold: Detections with a lower score are not painted.
        tta: Augment at test time.

    Raises:
        UserError: The config is for another toolbox, the checkpoint does not fit it, the device is not there or the
            score none.
    """
    check_scope(config.get("default_scope"))
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    _check_device(device)
    if not 0 <= score_threshold <= 1:
        raise UserError(f"--score must be a score from 0 to 1, got {score_threshold}")
    return Predictor(config, checkpoint, device, score_threshold, tta)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device} cannot be used on this machine: {reason}") from error
