"""A run of inference: sources in, pictures and files out; what is odd about one ends none of the others."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from eyetoy_mm.compat.image_sizes import ImageTooLargeError
from eyetoy_mm.engine.image_sources import Frame, FrameReader, PictureWriter, Source
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.engine.prediction_files import PredictionFiles, Wanted
from eyetoy_mm.engine.predictions import Choice, Prediction, prediction_of
from eyetoy_mm.engine.preprocessing import check_image_exists
from eyetoy_mm.engine.tiling import Tiler, open_rows
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import check_folder, is_address
from eyetoy_mm.whole_files import write_whole

_SHOWN = 20  # reasons in the message at the end
_PICTURES = (".png", ".mp4")
_PAINTED_MASKS = 1 << 31  # bytes of masks, beyond which the picture of a large image has boxes alone


@dataclass(frozen=True)
class Settings:
    """What is done with images, beside predicting them.

    Args:
        folder: Of everything that is written.
        pictures: Paint what was predicted.
        files: Which files are written besides.
        choice: Which predictions count; all classes of a score of 0.3 when None.
        batch: Images, or windows, that are predicted together.
        tile: Side of the windows of large images, in pixels; None for the whole image at once.
        overlap: Of the windows; a quarter of them when None.
        frames: Of a video or camera at most.
        frames_as_images: Write videos as an image for each frame.
    """

    folder: Path
    pictures: bool = True
    files: Wanted = field(default_factory=Wanted)
    choice: Choice | None = None
    batch: int = 1
    tile: int | None = None
    overlap: int | None = None
    frames: int | None = None
    frames_as_images: bool = False

    def check(self, predictor: Predictor) -> None:
        """Check what is asked for against the model.

        Raises:
            UserError: It cannot be done.
        """
        check_folder("--out", self.folder)
        self.files.check(predictor.scope, predictor.has_masks)
        if self.tile is None and self.overlap is not None:
            raise UserError("--overlap is that of the windows of --tile: give that too")
        if self.tile is None:
            return
        if predictor.scope == "mmpretrain":
            raise UserError("--tile is for labels and objects; a classifier says one thing of a whole image")
        if hasattr(predictor.model, "panoptic_fusion_head"):
            raise UserError("--tile: segments of a panoptic model cannot be joined across windows")
        if self.files.crops:
            raise UserError("--save-crops cuts out of whole images, which --tile does not hold: leave one out")
        if self.overlap is not None and not 0 <= self.overlap < self.tile:
            raise UserError(f"--overlap {self.overlap} must be from 0 to less than --tile {self.tile}")


def infer(
    predictor: Predictor, sources: Sequence[Source], settings: Settings
) -> Generator[tuple[str, Path | None], None, None]:
    """Predict all sources, paint and write what is asked for.

    Args:
        predictor: The model.
        sources: As :func:`~eyetoy_mm.engine.image_sources.find_sources` gives them.
        settings: What is done with them.

    Yields:
        Each image or frame once it is done, and the file with its picture.

    Raises:
        UserError: Settings do not fit the model; or some images were not predicted, told at the end with the reasons.
    """
    settings.check(predictor)
    if settings.pictures:
        _check_inputs_stay(sources, settings.folder)
    settings.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".eyetoy-", dir=settings.folder) as scratch:
        run = _Run(predictor, settings, Path(scratch))
        with contextlib.closing(run):
            yield from run.all_of(sources)
    if run.refused:
        rest = len(run.refused) - _SHOWN
        listed = [*run.refused[:_SHOWN], *([f"and {rest} more{_listed(run)}"] if rest > 0 else [])]
        raise UserError(
            f"{len(run.refused)} of {run.count} images were not predicted:\n  " + "\n  ".join(listed)
        ) from run.last_error


def _listed(run: _Run) -> str:
    """Write a file with all the images that were not predicted, and why; say where, unless it cannot be written."""
    path = run.settings.folder / "not_predicted.txt"
    try:
        write_whole(path, "".join(f"{line}\n" for line in run.refused).encode(errors="backslashreplace"))
    except OSError:  # which may be what they were not predicted for
        return ""
    return f", all in {path}"


def _check_inputs_stay(sources: Sequence[Source], folder: Path) -> None:
    """Check that no picture takes the place of a file that was given.

    Raises:
        UserError: One would.
    """
    pictures = {os.path.realpath(folder / f"{source.target}{suffix}") for source in sources for suffix in _PICTURES}
    taken = [source.place for source in sources if source.kind != "web" and os.path.realpath(source.place) in pictures]
    if taken:
        raise UserError(f"pictures in --out {folder} would take the place of {first_few(taken)}: take another folder")


class _Run:
    """What a run has at hand, and what it could not do."""

    def __init__(self, predictor: Predictor, settings: Settings, scratch: Path) -> None:
        self.predictor = predictor
        self.settings = settings
        self.scratch = scratch
        self.reader = FrameReader(predictor.preprocessing, scratch, settings.frames)
        self.pictures = PictureWriter(settings.folder, settings.frames_as_images)
        classes = predictor.dataset_meta["classes"]
        self.choice = settings.choice or Choice(classes)
        self.files = PredictionFiles(settings.folder, classes, settings.files)
        self.count = 0
        self.refused: list[str] = []
        self.last_error: Exception | None = None

    def close(self) -> None:
        self.pictures.close()
        self.files.close()

    def all_of(self, sources: Sequence[Source]) -> Iterator[tuple[str, Path | None]]:
        pending: list[tuple[Frame, np.ndarray]] = []
        for source in sources:
            if self.settings.tile is not None:
                yield from self._tiled(source)
                continue
            for frame in self.reader.of(source):
                self.count += 1
                try:
                    pending.append((frame, frame.load()))
                except Exception as error:  # whatever a transform raises for an odd image
                    self._refuse(frame.name, None, error)
                if len(pending) == self.settings.batch:
                    yield from self._predicted(pending)
                    pending = []
        yield from self._predicted(pending)

    def _predicted(self, pending: list[tuple[Frame, np.ndarray]]) -> Iterator[tuple[str, Path | None]]:
        """Predict some frames together, or one by one where that fails: then one of them is odd."""
        if not pending:
            return
        try:
            samples = self.predictor.predict_batch([image for _, image in pending])
        except Exception as error:  # whatever a transform or a model raises for an odd image
            if len(pending) == 1:
                self._refuse(pending[0][0].name, pending[0][1], error)
                return
            for one in pending:
                yield from self._predicted([one])
            return
        for (frame, image), sample in zip(pending, samples):
            try:
                where = self._write(frame, image, self.choice.of(sample))
            except Exception as error:  # of a visualizer, or of a disk
                self._refuse(frame.name, image, error)
            else:
                yield frame.name, where

    def _write(self, frame: Frame, image: np.ndarray, sample: BaseDataElement) -> Path | None:
        if self.settings.files != Wanted():
            size = image.shape[:2]
            prediction = prediction_of(sample, (size[0], size[1]), len(self.choice.classes))
            picture = self.predictor.preprocessing.picture(image) if self.settings.files.crops else None
            name = frame.source.name if frame.rate is None else f"{frame.target.as_posix()}.png"
            self.files.add(name, frame.target, prediction, picture)
        if not self.settings.pictures:
            return None
        return self.pictures.write(frame, self.predictor.paint(image, sample, legend=True))

    # --- Large images -------------------------------------------------------------------------------------------------

    def _tiled(self, source: Source) -> Iterator[tuple[str, Path | None]]:
        self.count += 1
        try:
            with self.reader.local(source) as here:
                if here.kind != "image":
                    raise UserError(f"{source.name}: --tile is for images; leave it out for videos")
                where = self._write_tiled(here)
        except Exception as error:  # of a file, a model, a visualizer, or a disk
            self._refuse(source.name, None, error)
        else:
            yield source.name, where

    def _write_tiled(self, source: Source) -> Path | None:
        assert self.settings.tile is not None
        overlap = self.settings.tile // 4 if self.settings.overlap is None else self.settings.overlap
        tiler = Tiler(self._predict_windows, len(self.choice.classes), self.settings.tile, overlap, self.settings.batch)
        if is_address(source.place):
            raise UserError(f"{source.place}: --tile reads files of this machine's disks: copy it to one")
        check_image_exists(source.place)
        with contextlib.closing(open_rows(source.place)) as rows:
            found = tiler(rows, self.scratch)
        if self.settings.files != Wanted():
            self.files.add(source.name, source.target, found.prediction)
        if not self.settings.pictures:
            return None
        image = self.reader.read_array(_bgr(found.preview))
        sample = self._sample(found.preview_prediction)
        frame = Frame(source, source.name, source.target, lambda: image)
        return self.pictures.write(frame, self.predictor.paint(image, sample, legend=True))

    def _predict_windows(self, windows: list[np.ndarray]) -> list[BaseDataElement]:
        samples = self.predictor.predict_batch([self.reader.read_array(_bgr(window)) for window in windows])
        return [self.choice.of(sample) for sample in samples]

    def _sample(self, prediction: Prediction) -> BaseDataElement:
        """A data sample of the toolbox, for its painter."""
        if prediction.labels is not None:
            from mmseg.structures import SegDataSample

            labels = torch.from_numpy(prediction.labels.astype(np.int64))[None]
            return SegDataSample(pred_sem_seg=PixelData(data=labels))
        from mmdet.structures import DetDataSample

        found = prediction.instances
        if found is None:
            return DetDataSample(pred_instances=InstanceData())
        data: dict[str, Any] = dict(
            bboxes=torch.from_numpy(found.boxes), scores=torch.from_numpy(found.scores),
            labels=torch.from_numpy(found.labels),
        )  # fmt: skip
        if found.masks is not None and len(found) * prediction.size[0] * prediction.size[1] <= _PAINTED_MASKS:
            masks = np.zeros((len(found), *prediction.size), bool)
            for whole, (inside, x, y) in zip(masks, found.masks):
                part = whole[y : y + inside.shape[0], x : x + inside.shape[1]]
                part[:] = inside[: part.shape[0], : part.shape[1]]
            data["masks"] = torch.from_numpy(masks)
        return DetDataSample(pred_instances=InstanceData(**data))

    def _refuse(self, name: str, image: np.ndarray | None, error: Exception) -> None:
        self.refused.append(_reason(name, image, error))
        self.last_error = error


def _bgr(pixels: np.ndarray) -> np.ndarray:
    """Pixels as OpenCV has them: ``(H, W)``, or blue first."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def _reason(name: str, image: np.ndarray | None, error: Exception) -> str:
    if image is None and isinstance(error, UserError | ImageTooLargeError):
        return str(error)
    size = "" if image is None else f", {image.shape[1]} x {image.shape[0]} pixels,"
    lines = str(error).strip().splitlines()
    return f"{name}{size} cannot be predicted or painted: {type(error).__name__}: {lines[0] if lines else ''}"
