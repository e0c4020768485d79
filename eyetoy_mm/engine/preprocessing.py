"""One rule for what is done to an image before a model sees it: what the test data loader does is what is measured.

Every tool prepares images by its pipeline, and by the data preprocessor that the Runner gives the model. Other places
of a config that could say otherwise are made to follow, with a word about it, or are refused.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import TRANSFORMS

from eyetoy_mm.compat.image_sizes import ImageTooLargeError
from eyetoy_mm.datasets.image_files import foreign_kind, lost_in_loading, read_header
from eyetoy_mm.engine.config_parts import datasets_of
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address
from eyetoy_mm.registry import type_name
from eyetoy_mm.zoo import advice

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of red, green, blue
_CHANNELS = {"color": 3, "color_ignore_orientation": 3, "grayscale": 1}  # by color_type
# Datasets that hold images themselves, where others hold paths: what their images are.
_HELD_IMAGES = {"CIFAR10": ("color", "rgb"), "MNIST": ("grayscale", "bgr")}


class Preprocessing:
    """What the test data loader of a config does to an image; annotations are left out.

    Args:
        config: Of mmseg, mmdet or mmpretrain; its ``default_scope`` is the current one.

    Raises:
        UserError: The config says nowhere how images are prepared.

    Attributes:
        after_loading: The steps of the pipeline that :meth:`prepare` does, as the config has them.
    """

    def __init__(self, config: Config) -> None:
        steps = _without_annotations(copy.deepcopy(test_pipeline(config)))
        end = _end_of_loading(steps)
        self.after_loading = copy.deepcopy(steps[end:])
        transforms: list[Callable[[dict], dict | None]] = [TRANSFORMS.build(step) for step in steps]
        self._loading, self._steps = transforms[:end], transforms[end:]
        self._held_as = ("color", "bgr") if end else _held_images(config)

    @property
    def channel_order(self) -> str:
        """Of images of three channels, as :meth:`read` gives them: ``"bgr"`` or ``"rgb"``."""
        return self._held_as[1]

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image as the pipeline does: its channels, their order and type; a warning says what is lost of it.

        Args:
            path: A file or an address.

        Returns:
            The image ``(H, W, C)``, or ``(H, W)`` where the pipeline loads it so.

        Raises:
            UserError: The file is missing, or no image.
        """
        if not self._loading:
            return read_image(path, *self._held_as)
        check_image_exists(path)
        results: dict | None = dict(img_path=str(path), img_id=0)
        try:
            for step in self._loading:
                results = step(results) if results is not None else None
        except (AssertionError, cv2.error, OSError, ValueError) as error:
            raise UserError(why_unreadable(path)) from error
        if results is None or results.get("img") is None:
            raise UserError(why_unreadable(path))
        _tell_what_is_lost(path, results["img"])
        return results["img"]

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """Resize, pack and whatever else the pipeline does after loading.

        Args:
            image: As :meth:`read` gives it.

        Returns:
            ``inputs`` and ``data_samples`` of one image, for the model's data preprocessor.
        """
        size = image.shape[:2]
        results: dict | None = dict(img=image, img_path="", img_id=0, img_shape=size, ori_shape=size)
        for step in self._steps:
            results = step(results) if results is not None else None
        if results is None:
            raise UserError(f"the test pipeline drops an image of {size[1]} x {size[0]} pixels")
        return results

    def picture(self, image: np.ndarray) -> np.ndarray:
        """What people see of an image that :meth:`read` gave, or of one that is resized, by :func:`as_picture`."""
        return as_picture(image, self.channel_order)


def as_picture(image: np.ndarray, channel_order: str) -> np.ndarray:
    """What people see of an image: BGR ``(H, W, 3)`` of 8 bits.

    One or two channels become grey, of more than three the first three are taken. Where there are numbers beyond 255,
    the largest becomes white.

    Args:
        image: ``(H, W, C)`` or ``(H, W)``, of any type.
        channel_order: Of three channels: ``bgr`` or ``rgb``.
    """
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    image = image[..., ::-1] if channel_order == "rgb" else image
    if image.dtype != np.uint8:
        highest = float(image.max(initial=0))
        image = (image * (255.0 / highest if highest > 255 else 1.0)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def read_image(path: str | Path, color_type: str = "color", channel_order: str = "bgr") -> np.ndarray:
    """Read an image of 8 bits, from a disk or from an address.

    Args:
        path: A file or an address.
        color_type: ``color`` for three channels, ``grayscale`` for one.
        channel_order: ``bgr`` or ``rgb``.

    Returns:
        The image ``(H, W, 3)``, or ``(H, W)``.

    Raises:
        UserError: The file is missing, too large, or no image.
    """
    check_image_exists(path)
    try:
        image = mmcv.imread(str(path), flag=color_type, channel_order=channel_order)
    except cv2.error:  # of an empty file
        image = None
    except ImageTooLargeError as error:
        raise UserError(str(error)) from error
    if image is None:
        raise UserError(why_unreadable(path))
    _tell_what_is_lost(path, image)
    return image


def _tell_what_is_lost(path: str | Path, image: np.ndarray) -> None:
    """Warn of pages that are not read, and of a range of 16 bits that is nearly black in 8.

    Only files that may be such are looked at once more: it is told of each image that is predicted.
    """
    if is_address(path) or image.dtype != np.uint8 or not image.size:
        return
    if Path(path).suffix.lower() in (".tif", ".tiff") or image.max() < 16 or image.min() == 255:
        header = read_header(str(path))
        for fault in lost_in_loading(header, image) if header is not None else ():
            print_log(f"{path}: {fault.message}", "current", logging.WARNING)


def check_image_exists(path: str | Path) -> None:
    """Check that an image is there; addresses are left to who reads them.

    Raises:
        UserError: There is no such file.
    """
    if not is_address(path) and Path(path).is_dir():
        raise UserError(f"{path} is a folder: name its images, as {Path(path) / '*.jpg'}")
    if not is_address(path) and not Path(path).is_file():
        raise UserError(f"there is no image {path}{advice(str(path), with_weights=True)}")


# --- What a config says ---------------------------------------------------------------------------------------------


def test_dataset(config: Config) -> dict | None:
    """The dataset of the test data loader, the first where several are joined, out of its wrappers; None without."""
    loader = config.get("test_dataloader")
    dataset = loader.get("dataset") if loader else None
    while isinstance(dataset, dict) and "pipeline" not in dataset:
        inner = dataset.get("dataset") or dataset.get("datasets")
        dataset = inner[0] if isinstance(inner, list | tuple) else inner
    return dataset


def test_pipeline(config: Config) -> list[dict]:
    """The pipeline that images are tested with, and inferred with.

    Raises:
        UserError: The config has none.
    """
    dataset = test_dataset(config)
    pipeline = config.get("test_pipeline") if dataset is None else dataset["pipeline"]
    if not pipeline:
        raise UserError(
            "the config does not say how images are prepared: it has neither test_dataloader.dataset.pipeline nor "
            "test_pipeline"
        )
    return pipeline


def unify_preprocessing(config: Config) -> None:
    """Let the places of a config that say how images are prepared say the same, in place; tell where they did not.

    ``test_pipeline`` follows the test data loader, ``model.data_preprocessor`` is what the Runner takes.

    Raises:
        UserError: Training and evaluation load or normalise images differently, or the backbone takes other channels
            than are loaded.
    """
    for remark in _follow(config):
        print_log(remark, "current", logging.WARNING)
    mistakes = list(_differences_between_splits(config))
    if mistakes:
        raise UserError(
            f"{'; '.join(mistakes)}. There the model sees other numbers than it learned from: make them alike"
        )
    for mistake in _other_channels(config):
        raise UserError(mistake)


def _follow(config: Config) -> Iterator[str]:
    """Settle which of two places counts, and yield a remark for each that does not."""
    dataset, given = test_dataset(config), config.get("test_pipeline")
    if dataset is not None and given is not None and _plain(given) != _plain(dataset["pipeline"]):
        config.test_pipeline = dataset["pipeline"]
        yield (
            "test_pipeline of the config is not the pipeline of its test data loader. The loader's is what is "
            "measured, so every tool prepares images by that one, and test_pipeline is not used; where it is meant, "
            "set test_dataloader=dict(dataset=dict(pipeline=test_pipeline))"
        )
    top, own = config.get("data_preprocessor") or {}, (config.get("model") or {}).get("data_preprocessor") or {}
    wanted, used = _plain(top), _plain(own)
    lost = [f"{key}={used.get(key)!r} and not {wanted[key]!r}" for key in wanted if used.get(key) != wanted[key]]
    if own and lost:
        yield (
            "data_preprocessor of the config is not used, for model has one of its own, which differs: the model takes "
            + ", ".join(lost)
        )
    yield from _mixed_up_channels(config, own or top)


def _mixed_up_channels(config: Config, preprocessor: dict) -> Iterator[str]:
    mean = preprocessor.get("mean")
    mean = tuple(mean) if isinstance(mean, list | tuple) else ()
    if mean not in (_IMAGENET_MEAN, _IMAGENET_MEAN[::-1]) or test_dataset(config) is None:
        return
    swaps = any(preprocessor.get(key) for key in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb"))
    rgb = holds_rgb(config)
    if (mean == _IMAGENET_MEAN) != (rgb != swaps):
        order = "red, green, blue" if mean == _IMAGENET_MEAN else "blue, green, red"
        yield (
            f"mean={list(mean)} of the data preprocessor is ImageNet's in the order {order}, but images arrive there "
            f"in the other order: {'do not ' if swaps else ''}swap channels (bgr_to_rgb, or to_rgb in mmpretrain), or "
            "turn mean and std around"
        )


def _differences_between_splits(config: Config) -> Iterator[str]:
    """What the splits do differently to the numbers of an image, where it is the same for all images of a split."""
    seen: dict[str, dict[str, Any]] = {}
    for split, dataset in datasets_of(config, ("train", "val", "test")):
        if dataset.get("pipeline"):
            seen.setdefault(split, _color_treatment(dataset["pipeline"]))
    if config.get("tta_pipeline"):
        seen["test-time augmentation"] = _color_treatment(config.tta_pipeline)
    for key, learned in seen.pop("train", {}).items():
        others = [split for split in seen if seen[split][key] != learned]
        if others:
            yield (
                f"{key} is {learned!r} in the training pipeline and {seen[others[0]][key]!r} in that of "
                f"{' and '.join(others)}"
            )


def _other_channels(config: Config) -> Iterator[str]:
    """Where the channels that are loaded are not those that the backbone takes."""
    model = config.get("model") or {}
    wanted = (model.get("backbone") or {}).get("in_channels")
    preprocessor = model.get("data_preprocessor") or config.get("data_preprocessor") or {}
    mean = preprocessor.get("mean") or ()
    for split, dataset in datasets_of(config, ("train", "val", "test")):
        steps = list(_steps(dataset.get("pipeline") or []))
        loading = next((step for step in steps if type_name(step) == "LoadImageFromFile"), None)
        if loading is None or wanted is None or any("Gray" in type_name(step) for step in steps):
            continue
        color_type = loading.get("color_type", "color")
        channels = _CHANNELS.get(color_type, wanted)
        if channels == 1 and len(mean) > 1:
            channels = len(mean)  # one channel less each mean
        if channels != wanted:
            yield (
                f"model.backbone.in_channels={wanted}, but LoadImageFromFile of the {split} pipeline gives {channels} "
                f"with color_type={color_type!r}; 'grayscale' gives 1, 'color' 3, 'unchanged' those of the files"
            )


def _color_treatment(pipeline: list[dict]) -> dict[str, Any]:
    steps = list(_steps(pipeline))
    loading = next((step for step in steps if type_name(step) == "LoadImageFromFile"), {})
    normalize = next((step for step in steps if type_name(step) == "Normalize"), None)
    settings = None if normalize is None else {key: _plain(normalize.get(key)) for key in ("mean", "std", "to_rgb")}
    return {"color_type of LoadImageFromFile": loading.get("color_type", "color"), "Normalize": settings}


def _steps(pipeline: Sequence[Any]) -> Iterator[dict]:
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get("transforms") or ())
        elif isinstance(step, list | tuple):  # ways of test-time augmentation
            yield from _steps(step)


def _plain(node: Any) -> Any:
    """A part of a config with names for classes and lists for tuples, to be compared and shown."""
    if isinstance(node, dict):
        named = {key: value for key, value in node.items() if key != "_scope_"}
        return {key: type_name(node) if key == "type" else _plain(value) for key, value in named.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node


def _held_images(config: Config) -> tuple[str, str]:
    """Colour type and channel order of the images of a dataset that has them itself; of others, what OpenCV reads."""
    kind: Any = (test_dataset(config) or {}).get("type")
    if isinstance(kind, str):
        with MMENGINE_DATASETS.switch_scope_and_registry(config.get("default_scope")) as registry:
            kind = registry.get(kind)
    return held_as(kind)


def holds_rgb(config: Config) -> bool:
    """Whether the test data are held as red, green, blue, as CIFAR's: images that a step loads are blue, green, red."""
    dataset = test_dataset(config)
    if not isinstance(dataset, dict) or any(map(_is_image_loader, dataset["pipeline"])):
        return False
    return _held_images(config)[1] == "rgb"


def held_as(kind: Any) -> tuple[str, str]:
    """Colour type and channel order of the images of a class of datasets, as :func:`_held_images` has them."""
    names = [cls.__name__ for cls in getattr(kind, "__mro__", ())]
    return next((_HELD_IMAGES[name] for name in names if name in _HELD_IMAGES), ("color", "bgr"))


def _is_image_loader(step: dict) -> bool:
    return type_name(step).startswith("Load") and "Image" in type_name(step)


def _end_of_loading(steps: list[dict]) -> int:
    """How many steps come before a pipeline has its image, the loader included; 0 where none of them loads it.

    A user's own loader may be called otherwise than those of the toolboxes: it is the first that loads anything.
    """
    for is_loader in (_is_image_loader, lambda step: type_name(step).startswith("Load")):
        for index, step in enumerate(steps, 1):
            if is_loader(step):
                return index
    return 0


def _without_annotations(steps: Sequence[Any]) -> list[Any]:
    """The steps of a pipeline without those that load annotations, within ways of test-time augmentation too."""
    kept: list[Any] = []
    for step in steps:
        if isinstance(step, list | tuple):  # ways, of which one is taken
            ways = _without_annotations(step)
            kept += [ways] if ways else []
        elif not _is_annotation_loader(step):
            if step.get("transforms"):
                step["transforms"] = _without_annotations(step["transforms"])
            kept.append(step)
    return kept


def _is_annotation_loader(step: dict) -> bool:
    return type_name(step).startswith("Load") and "Annotation" in type_name(step)


def why_unreadable(path: str | Path) -> str:
    """What to say of a file that does not load as an image: that it is empty, or what it is instead."""
    kind = ""
    if not is_address(path):
        try:
            with open(path, "rb") as file:
                head = file.read(64)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if not head:
            return f"{path} is empty"
        kind = foreign_kind(head)
    return f"{path} is not an image that can be read; it {f'is {kind}' if kind else 'may be damaged or cut short'}"
