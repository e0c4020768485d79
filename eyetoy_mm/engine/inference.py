"""One way to predict and paint an image with a model of mmseg, mmdet or mmpretrain."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement

from eyetoy_mm.compat.image_sizes import ImageTooLargeError
from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.painting import check_scope, make_painter
from eyetoy_mm.engine.preprocessing import Preprocessing, test_dataset
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import check_folder


class Predictor:
    """A trained model that predicts images as its config's test data loader feeds it, and paints what it predicts.

    Args:
        config: A config of mmseg, mmdet or mmpretrain; it stays as it is.
        checkpoint: Its weights.
        device: A torch device.
        score_threshold: Detections with a lower score are not painted.

    Attributes:
        model: The model, in evaluation mode.
        preprocessing: What is done to an image before the model sees it.
        dataset_meta: Names (``classes``) and colours (``palette``) of the classes, as far as they are known.
        painter: Paints predictions.
    """

    def __init__(self, config: Config, checkpoint: str, device: str, score_threshold: float = 0.3) -> None:
        check_config(config)
        init_default_scope(config.default_scope)
        model = copy.deepcopy(config.model)  # DETRs write into theirs, and refuse it the next time
        model.setdefault("data_preprocessor", copy.deepcopy(config.get("data_preprocessor")))  # as the Runner does
        self.model: Any = MODELS.build(model)
        check_fits(self.model, checkpoint)
        meta = load_checkpoint(self.model, checkpoint, map_location="cpu").get("meta") or {}
        self.model.to(device).eval()
        self.preprocessing = Preprocessing(config)
        self.dataset_meta = _dataset_meta(meta, config, self.model)
        self.painter = make_painter(config.default_scope, self.dataset_meta, score_threshold)

    def read(self, path: str | Path) -> np.ndarray:
        """An image as the model was tested with it: see :meth:`~eyetoy_mm.engine.preprocessing.Preprocessing.read`."""
        return self.preprocessing.read(path)

    def predict(self, image: np.ndarray) -> BaseDataElement:
        """The toolbox' data sample for one image, as :meth:`read` gives it."""
        with torch.no_grad():
            return self.model.test_step(pseudo_collate([self.preprocessing.prepare(image)]))[0]

    def paint(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """The prediction in ``sample``, painted over the image; RGB of 8 bits."""
        return self.painter.paint(self.preprocessing.picture(image), sample)


def _dataset_meta(meta: dict, config: Config, model: Any) -> dict[str, Any]:
    """Names and colours of the classes: the checkpoint's, else those of the test set, else numbers."""
    found = meta.get("dataset_meta") or {"classes": meta.get("CLASSES"), "palette": meta.get("PALETTE")}
    dataset = test_dataset(config)
    if not found.get("classes") and dataset is not None:
        kind = dataset["type"]
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        found = {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    if not found.get("classes"):
        heads = (module for module in model.modules() if isinstance(getattr(module, "num_classes", None), int))
        found = {"classes": [str(label) for label in range(next(heads).num_classes)]}
    return {**found, "classes": tuple(found["classes"])}


def open_predictor(
    config: Config, checkpoint: str, device: str | None = None, score_threshold: float = 0.3
) -> Predictor:
    """Open a model for inference.

    Args:
        config: A config of mmseg, mmdet or mmpretrain.
        checkpoint: Its weights.
        device: A torch device; the accelerator if there is one, else the CPU, when None.
        score_threshold: Detections with a lower score are not painted.

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
        raise UserError(f"--score-thr must be a score from 0 to 1, got {score_threshold}")
    return Predictor(config, checkpoint, device, score_threshold)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device} cannot be used on this machine: {reason}") from error


def paint_files(predictor: Predictor, images: Sequence[str | Path], folder: Path) -> Iterator[tuple[str | Path, Path]]:
    """Predict and paint one image after the other; what goes wrong with one does not end the others.

    Args:
        predictor: The model.
        images: Files or addresses.
        folder: Where the pictures go.

    Yields:
        Each image, and its picture.

    Raises:
        UserError: The folder cannot be one; or some images were not painted, told at the end, each with the reason.
    """
    check_folder("--out", folder)
    used_paths: set[Path] = set()
    refused: list[str] = []
    last_error: Exception | None = None
    for path in images:
        target = folder / f"{Path(path).stem}.png"
        while target in used_paths:  # images of one name from several folders
            target = target.with_stem(target.stem + "_")
        image = None
        try:
            image = predictor.read(path)
            painted = predictor.paint(image, predictor.predict(image))
            mmcv.imwrite(mmcv.rgb2bgr(painted), str(target))
        except Exception as error:  # whatever a transform, a model or a visualizer raises for an odd image
            refused.append(_reason(path, image, error))
            last_error = error
            continue
        used_paths.add(target)
        yield path, target
    if refused:
        raise UserError(
            f"{len(refused)} of {len(images)} images were not painted:\n  " + "\n  ".join(refused)
        ) from last_error


def _reason(path: str | Path, image: np.ndarray | None, error: Exception) -> str:
    if image is None and isinstance(error, UserError | ImageTooLargeError):
        return str(error)
    size = "" if image is None else f", {image.shape[1]} x {image.shape[0]} pixels,"
    lines = str(error).strip().splitlines()
    return f"{path}{size} cannot be predicted or painted: {type(error).__name__}: {lines[0] if lines else ''}"
