"""One way to predict and paint an image with a model of mmseg, mmdet or mmpretrain."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from typing_extensions import override

from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address


class Predictor:
    """A trained model that predicts images and paints what it predicts.

    Images are BGR arrays ``(H, W, 3)`` of 8 bits, as :func:`read_image` gives them; paintings are RGB.
    """

    def __init__(self, config: Config, checkpoint: str, device: str, score_threshold: float) -> None:
        self.config = copy.deepcopy(config)  # DETRs write into theirs, and refuse it the next time
        self.score_threshold = score_threshold
        check_config(config)
        init_default_scope(config.default_scope)
        # before the toolboxes load what fits and ignore the rest
        check_fits(MODELS.build(copy.deepcopy(config.model)), checkpoint)
        self.model = self._open(checkpoint, device)

    def _open(self, checkpoint: str, device: str) -> torch.nn.Module:
        raise NotImplementedError

    def predict(self, image: np.ndarray) -> BaseDataElement:
        """The toolbox' data sample for one image."""
        raise NotImplementedError

    def paint(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """The prediction in ``sample``, painted over the image."""
        raise NotImplementedError


class SegPredictor(Predictor):
    """A segmentor of mmseg."""

    @override
    def _open(self, checkpoint: str, device: str) -> torch.nn.Module:
        from mmseg.apis import init_model
        from mmseg.visualization import SegLocalVisualizer

        model = init_model(self.config, checkpoint, device=device)
        self.visualizer = SegLocalVisualizer(alpha=0.6)
        self.visualizer.dataset_meta = model.dataset_meta
        return model

    @override
    def predict(self, image: np.ndarray) -> BaseDataElement:
        from mmseg.apis import inference_model

        return inference_model(self.model, image)

    @override
    def paint(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        self.visualizer.add_datasample("image", mmcv.bgr2rgb(image), sample, draw_gt=False, with_labels=False)
        return self.visualizer.get_image()


class DetPredictor(Predictor):
    """A detector of mmdet; boxes and masks from the score threshold on are painted."""

    @override
    def _open(self, checkpoint: str, device: str) -> torch.nn.Module:
        from mmdet.apis import init_detector
        from mmdet.visualization import DetLocalVisualizer

        model = init_detector(self.config, checkpoint, device=device)
        self.visualizer = DetLocalVisualizer()
        self.visualizer.dataset_meta = model.dataset_meta
        return model

    @override
    def predict(self, image: np.ndarray) -> BaseDataElement:
        from mmdet.apis import inference_detector

        return inference_detector(self.model, image)

    @override
    def paint(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        self.visualizer.add_datasample(
            "image", mmcv.bgr2rgb(image), sample, draw_gt=False, pred_score_thr=self.score_threshold
        )
        return self.visualizer.get_image()


class ClsPredictor(Predictor):
    """A classifier of mmpretrain; the best class and its score are written on the image."""

    @override
    def _open(self, checkpoint: str, device: str) -> torch.nn.Module:
        from mmpretrain import ImageClassificationInferencer
        from mmpretrain.visualization import UniversalVisualizer

        self.inferencer = ImageClassificationInferencer(self.config, pretrained=checkpoint, device=device)
        self.visualizer = UniversalVisualizer()
        return self.inferencer.model

    @override
    def predict(self, image: np.ndarray) -> BaseDataElement:
        return self.inferencer(image, return_datasamples=True)[0]

    @override
    def paint(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        self.visualizer.visualize_cls(mmcv.bgr2rgb(image), sample, classes=self.inferencer.classes, draw_gt=False)
        return self.visualizer.get_image()


_PREDICTORS: dict[str, type[Predictor]] = {"mmseg": SegPredictor, "mmdet": DetPredictor, "mmpretrain": ClsPredictor}


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
        UserError: The config is for another toolbox, or the checkpoint does not fit it.
    """
    scope = config.get("default_scope")
    if scope not in _PREDICTORS:
        raise UserError(f"default_scope of the config is {scope!r}; it must be one of {', '.join(_PREDICTORS)}")
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    return _PREDICTORS[scope](config, checkpoint, device, score_threshold)


def paint_files(predictor: Predictor, images: Iterable[str | Path], folder: Path) -> Iterator[tuple[str | Path, Path]]:
    """Predict and paint one image after the other.

    Args:
        predictor: The model.
        images: Files or addresses.
        folder: Where the pictures go.

    Yields:
        Each image, and its picture.

    Raises:
        UserError: Some are missing or no images; told at the end: one bad image should not stop a long run.
    """
    used_paths: set[Path] = set()
    refused: list[UserError] = []
    for path in images:
        try:
            image = read_image(path)
        except UserError as error:
            refused.append(error)
            continue
        target = folder / f"{Path(path).stem}.png"
        while target in used_paths:  # images of one name from several folders
            target = target.with_stem(target.stem + "_")
        used_paths.add(target)
        painted = predictor.paint(image, predictor.predict(image))
        mmcv.imwrite(mmcv.rgb2bgr(painted), str(target))
        yield path, target
    if refused:
        raise UserError("; ".join(map(str, refused)))


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as BGR ``(H, W, 3)``, from a disk or from an address.

    Raises:
        UserError: The file is missing, or no image.
    """
    if not is_address(path) and not Path(path).is_file():
        raise UserError(f"there is no image {path}")
    image = mmcv.imread(str(path))
    if image is None:
        raise UserError(f"{path} is not an image that OpenCV can read")
    return image
