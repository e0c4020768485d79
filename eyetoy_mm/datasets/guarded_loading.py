"""Steps of a pipeline that load images and masks, guarded: a file that is not what it should be is named.

A guarded step costs the comparison of two sizes, and in the first epoch the head of each file where no rule of EXIF
orientation is set. Configs stay as they are: a hook guards the pipelines of data sets that are built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.image_files import (
    SWAPS_SIDES,
    TURNED_ON_REQUEST,
    Fault,
    Header,
    examine_file,
    orientation_fault,
    read_header,
    size_fault,
)
from eyetoy_mm.datasets.masks import number_fault
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import is_address

_UNSEEN, _SEEN, _UNREADABLE = 0, 1, 2
_FROM_AFAR = 10  # files at addresses that are looked at before a run


class ImageLog:
    """What became of each image of a data set, shared by the processes that load them.

    Args:
        size: Images of the data set.
        skip: The share of them that may be left out of training because they cannot be read; 0 to stop at the first.

    Attributes:
        evaluated: Whether figures are made of the images: then none may be left out, whatever ``skip`` is.
    """

    def __init__(self, size: int, skip: float = 0.0) -> None:
        self.skip = skip
        self.evaluated = False
        self.states = torch.zeros(size, dtype=torch.uint8).share_memory_()
        self.masks_seen = torch.zeros(size, dtype=torch.bool).share_memory_()
        self.known: list[str] = []  # of this process, for its message

    def is_new(self, results: dict) -> bool:
        """Whether an image is loaded for the first time, as far as is known."""
        index = results.get("sample_idx")
        if index is None or self.states[index] == _SEEN:
            return index is None
        self.states[index] = _SEEN
        return True

    def is_new_mask(self, results: dict) -> bool:
        """Whether the mask of an image is loaded for the first time, as far as is known."""
        index = results.get("sample_idx")
        if index is None:
            return True
        seen = bool(self.masks_seen[index])
        self.masks_seen[index] = True
        return not seen

    def leave_out(self, results: dict, path: str, why: str) -> None:
        """Note that an image cannot be read.

        Raises:
            UserError: None, or too many, may be left out.
        """
        if self.evaluated or not self.skip or "sample_idx" not in results:
            other = (
                ", or leave such files out of training: skip_unreadable_images=0.01 in the config, the largest share "
            )
            raise UserError(
                f"{path} cannot be loaded: {why}. Mend it or take it off the dataset (`eyetoy check CONFIG` finds all "
                f"such files){'; an evaluation leaves none out' if self.evaluated else f'{other}of them'}"
            )
        self.states[results["sample_idx"]] = _UNREADABLE
        self.known.append(path)
        count, size = int((self.states == _UNREADABLE).sum()), len(self.states)
        if count > self.skip * size:
            raise UserError(
                f"{count} of {size} images cannot be loaded, more than skip_unreadable_images={self.skip:g} allows: "
                f"{first_few(dict.fromkeys(self.known))}: {why}"
            )

    def unreadable(self) -> list[int]:
        """Indices of the images that were left out."""
        return torch.nonzero(self.states == _UNREADABLE).ravel().tolist()


class GuardedLoading:
    """A step that loads the image or its annotations, in place of it.

    Args:
        step: The step.
        rule: ``image_orientation`` of the config.
        log: Of the data set.
    """

    def __init__(self, step: Any, rule: str | None, log: ImageLog) -> None:
        self.step, self.rule, self.log = step, rule, log
        self.loads_image = isinstance(step, LoadImageFromFile)
        # mmseg's step casts to 8 bits; panoptic PNGs of mmdet are colours, and number more.
        self.cuts_numbers = any(kind.__module__.startswith("mmseg.") for kind in type(step).__mro__)

    def __call__(self, results: dict) -> dict | None:
        """Load, and compare what is loaded with what the annotation says.

        Returns:
            What the step gives; None for a file that cannot be read, if such may be skipped.

        Raises:
            UserError: A file cannot be read, or is not the one that was annotated.
        """
        path = results.get("img_path" if self.loads_image else "seg_map_path")
        try:
            loaded = self.step(results)
        except Exception as error:
            why = _why_unreadable(path, self.step)
            if why is None:  # the file is well: something else is wrong
                self._refuse_other_size(path, results, error)
                if hasattr(error, "add_note"):  # from Python 3.11 on
                    error.add_note(f"The file: {path}")
                raise
            try:
                self.log.leave_out(results, str(path), why)
            except UserError as refusal:
                raise refusal from error
            return None
        if loaded is not None and isinstance(path, str):
            if not self.loads_image:
                self._check_numbers(path, loaded)
            self._compare(loaded)
        return loaded

    def _refuse_other_size(self, path: Any, results: dict, error: Exception) -> None:
        """Tell a mask of another size than its image, at which a step has failed, as of panoptic PNGs.

        Raises:
            UserError: It is one.
        """
        if self.loads_image or not isinstance(path, str) or is_address(path) or "ori_shape" not in results:
            return
        header, (height, width) = read_header(path), results["ori_shape"][:2]
        if header is not None and header.size != (width, height):
            fault = size_fault(header.size, (width, height))
            raise UserError(f"{fault.kind}: {fault.of(path)}: {fault.message}") from error

    def _check_numbers(self, path: str, results: dict) -> None:
        """Refuse a mask that cannot be labels: in colour, or of more than 8 bits with numbers beyond them."""
        labels, fault = results.get("gt_seg_map"), None
        if labels is None or is_address(path):
            return
        if labels.ndim != 2 or (self.cuts_numbers and self.log.is_new_mask(results) and _is_wide(path)):
            report, pixels = examine_file(path, "unchanged", self.step.imdecode_backend, self.step.backend_args)
            fault = None if pixels is None else number_fault(pixels, report.header)
        if fault is not None:
            raise UserError(f"{fault.kind}: {fault.of(path)}: {fault.message}")

    def _compare(self, results: dict) -> None:
        """Compare the image, as it was loaded, with its annotation: boxes after it was loaded, a mask once it is."""
        annotated = annotated_size(results) if self.loads_image else _size(results.get("gt_seg_map"))
        if annotated is None or "ori_shape" not in results:
            return
        loaded = (int(results["ori_shape"][1]), int(results["ori_shape"][0]))
        path = results["img_path"]
        look = annotated != loaded or (self.rule is None and self.log.is_new(results))
        if not look or not isinstance(path, str):
            return
        header = None if is_address(path) else read_header(path)
        fault = orientation_fault(header or Header(loaded), annotated, loaded, self.rule)
        if fault is not None:
            where = path if self.loads_image else f"{path}, {results['seg_map_path']}"
            raise UserError(f"{fault.kind}: {fault.of(where)}: {fault.message}")


def guard(dataset: Any, rule: str | None, skip: float = 0.0, evaluated: bool = False) -> None:
    """Guard every step that loads files of a data set, in place; once is enough, more do no harm.

    Args:
        dataset: A data set of the toolboxes, wrapped or not.
        rule: ``image_orientation`` of the config.
        skip: The share of images that may be left out of training.
        evaluated: Whether it is evaluated on, which those in ``test_mode`` are: mmseg's and mmpretrain's are in no such
            mode. These leave out none, because figures of fewer images are other figures.
    """
    for plain in plain_datasets(dataset):
        pipeline = getattr(plain, "pipeline", None)
        if not hasattr(pipeline, "transforms"):
            continue
        if not hasattr(plain, "image_log"):
            plain.image_log = ImageLog(len(plain), skip)
        plain.image_log.evaluated |= evaluated or bool(getattr(plain, "test_mode", False))
        _guard_steps(pipeline, rule, plain.image_log)


def plain_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset, MultiImageMixDataset, ...)."""
    inner = getattr(dataset, "dataset", getattr(dataset, "datasets", None))
    if inner is None:
        yield dataset
        return
    for part in inner if isinstance(inner, list | tuple) else [inner]:
        yield from plain_datasets(part)


def look_at_some(dataset: Any, rule: str | None, limit: int = 100) -> Iterator[Finding]:
    """Read the heads of some images of a data set, spread over it, and compare them with their annotations.

    Args:
        dataset: A plain data set.
        rule: ``image_orientation`` of the config.
        limit: How many; at addresses, where whole files are fetched, a few.

    Yields:
        What is wrong with those.
    """
    pipeline = getattr(dataset, "pipeline", None)
    step, rule = image_loader(pipeline), rule_of(pipeline, rule)
    faults: dict[Fault, list[str]] = {}
    from_afar = _FROM_AFAR
    for index in spread(len(dataset), limit):
        data = dataset.get_data_info(index)
        path, annotated = data.get("img_path"), annotated_size(data)
        if step is None or not isinstance(path, str) or (annotated is None and not data.get("seg_map_path")):
            continue
        if is_address(path):
            from_afar -= 1
            if from_afar < 0:
                continue
        if annotated is None:
            mask = _header_of(data["seg_map_path"], step)
            annotated = None if mask is None else mask.size
        header = None if annotated is None else _header_of(path, step)
        if header is None or annotated is None:
            continue
        fault = orientation_fault(header, annotated, loaded_size(header, step.color_type), rule)
        if fault is not None:
            faults.setdefault(fault, []).append(fault.of(path))
    for fault, paths in faults.items():
        yield Finding(fault.kind, fault.message, tuple(paths), fatal=fault.fatal)


def _header_of(path: str, step: LoadImageFromFile) -> Header | None:
    """The head of an image on a disk, or at an address, where the whole file is fetched; None if there is none."""
    try:
        return read_header(fileio.get(path, step.backend_args) if is_address(path) else path)
    except OSError:  # told where it is loaded
        return None


def image_loader(pipeline: Any) -> LoadImageFromFile | None:
    """The step of a pipeline that loads the image."""
    return next((step for step in steps_of(pipeline) if isinstance(step, LoadImageFromFile)), None)


def mask_step(pipeline: Any) -> LoadAnnotations | None:
    """The step of a pipeline that loads masks of labels."""
    return next((step for step in steps_of(pipeline) if isinstance(step, LoadAnnotations) and step.with_seg), None)


def rule_of(pipeline: Any, rule: str | None) -> str | None:
    """The rule of a pipeline: the config's, or that of a step which was told to leave photos as stored."""
    step = image_loader(pipeline)
    asked = step is not None and step.color_type.endswith("_ignore_orientation")
    return "stored" if rule is None and asked else rule


def annotated_size(data: dict) -> tuple[int, int] | None:
    """Width and height that the annotation of boxes says; None if there are no boxes, or no size."""
    if not data.get("instances") or not data.get("width") or not data.get("height"):
        return None
    return int(data["width"]), int(data["height"])


def loaded_size(header: Header, color_type: str) -> tuple[int, int]:
    """Width and height of what mmcv makes of an image.

    Args:
        header: Of the file.
        color_type: The setting of the step that loads it.
    """
    turned = header.orientation in SWAPS_SIDES and header.format in TURNED_ON_REQUEST
    return header.size[::-1] if turned and color_type in ("color", "grayscale") else header.size


def _guard_steps(pipeline: Any, rule: str | None, log: ImageLog) -> None:
    """Replace steps by guarded ones, also inside steps that have others, as TestTimeAug and RandomChoice have."""
    rule = rule_of(pipeline, rule)
    for steps in _step_lists(pipeline):
        for index, step in enumerate(steps):
            if isinstance(step, LoadImageFromFile) or (isinstance(step, LoadAnnotations) and step.with_seg):
                steps[index] = GuardedLoading(step, rule, log)


def steps_of(pipeline: Any) -> Iterator[Any]:
    """Every step of a pipeline, guarded ones as they were."""
    for steps in _step_lists(pipeline):
        yield from (step.step if isinstance(step, GuardedLoading) else step for step in steps)


def _step_lists(pipeline: Any) -> Iterator[list]:
    """The lists of steps of a pipeline and of the steps in it that have their own."""
    for name in ("transforms", "subroutines"):
        inner = getattr(pipeline, name, None)
        if isinstance(inner, list):
            yield inner
        for part in inner if isinstance(inner, list) else [] if inner is None else [inner]:
            yield from _step_lists(part)


def _why_unreadable(path: Any, step: Any) -> str | None:
    """What is wrong with a file that a step could not load; None if nothing is."""
    if not isinstance(path, str):
        return None
    color_type = getattr(step, "color_type", "unchanged")
    report, _ = examine_file(path, color_type, step.imdecode_backend, step.backend_args)
    fault = next((fault for fault in report.faults if fault.fatal), None)
    return None if fault is None else f"{fault.message} ({fault.detail})" if fault.detail else fault.message


def _is_wide(path: str) -> bool:
    """Whether a file has more than 8 bits a pixel and channel, by its head."""
    header = read_header(path)
    return header is not None and header.bits > 8


def _size(mask: np.ndarray | None) -> tuple[int, int] | None:
    return None if mask is None or mask.ndim < 2 else (int(mask.shape[1]), int(mask.shape[0]))
