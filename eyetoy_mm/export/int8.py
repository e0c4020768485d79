"""Products and convolutions of an ONNX graph in int8, and how many of its labels stay what they were."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx

from eyetoy_mm.datasets.files import files_below
from eyetoy_mm.datasets.splits import is_image
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.checking import read_photo
from eyetoy_mm.export.onnx_graph import add_metadata, strip
from eyetoy_mm.export.runtimes import INPUT, open_session
from eyetoy_mm.export.tracing import quiet
from eyetoy_mm.version import __version__

QUANTIZED = ["MatMul", "Gemm", "Conv"]
LEAST = 0.98  # share of labels that stay
CALIBRATING = 32  # photos at most
COMPARED = 32, 512  # photos and labels that are enough: a classifier has one label for each


@dataclass(frozen=True)
class Photos:
    """A folder of photos, prepared as the test pipeline of a model does.

    Args:
        predictor: The model.
        folder: With all that is below it, see :func:`find_photos`.
        size: Height and width that a file is for; any when None.
    """

    predictor: Predictor
    folder: Path
    size: tuple[int, int] | None

    def read(self, start: int) -> Iterator[np.ndarray]:
        """Every second one, ``(1, 3, H, W)``, RGB, 0..255."""
        for path in find_photos(self.folder)[start::2]:
            yield read_photo(self.predictor, path, self.size).numpy()


def check_has_labels(scope: str, part: str) -> None:
    """Check that a model is one whose labels :func:`labels_kept` can count.

    Args:
        scope: Of its config.
        part: ``"whole"`` or ``"backbone"``.

    Raises:
        UserError: It is a detector, or a backbone alone.
    """
    if scope not in ("mmseg", "mmpretrain") or part != "whole":
        raise UserError("--int8 is for whole segmentors and classifiers, whose labels are counted to see that it pays")


def find_photos(folder: Path) -> list[Path]:
    """Images of a folder and of those below it, two at least: one half of them calibrates, the other is compared.

    Returns:
        Two of each folder in turn, so that the first ones, and every second of them, are of all folders: these may be
        classes.

    Raises:
        UserError: There are not.
    """
    below = files_below(folder) if folder.is_dir() else ()
    found = sorted(path for path in below if is_image(path.name) and path.is_file())
    if len(found) < 2:
        raise UserError(
            f"--int8 {folder} must be a folder with photos like those of the training, two at least: half of them "
            f"calibrate, half are compared; it has {len(found)}, those in folders below it included"
        )
    turns: list[tuple[int, Path, Path]] = []
    seen: Counter[Path] = Counter()
    for path in found:
        turns.append((seen[path.parent] // 2, path.parent, path))
        seen[path.parent] += 1
    return [path for _, _, path in sorted(turns)]


def to_int8(content: bytes, photos: Photos) -> tuple[bytes, str]:
    """Quantize a file, and see on other photos how many labels stay.

    Args:
        content: The file in float32; its last output is labels.
        photos: What calibrates, and what is compared.

    Returns:
        The content of the file in int8, and what was found.

    Raises:
        UserError: Too many labels are others.
    """
    small = quantize(content, islice(photos.read(0), CALIBRATING))
    equal, count = labels_kept(content, small, photos.read(1))
    share = f"{100 * equal / count:.2f} % of {count} labels"
    if equal < LEAST * count:
        raise UserError(
            f"in int8 only {share} are those of float32 on the photos of {photos.folder}, and no file was written: "
            f"{100 * LEAST:.0f} % should be. Calibrate with photos like those of the training, or export without --int8"
        )
    found = f"int8: {share} are those of float32, on photos that did not calibrate"
    proto = onnx.load_from_string(small)
    texts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    del proto.metadata_props[:]
    add_metadata(proto, texts | {"eyetoy.precision": found}, __version__)
    return proto.SerializeToString(), found


def quantize(content: bytes, images: Iterator[np.ndarray]) -> bytes:
    """Quantize weights, by channel, and what they are multiplied with, by the values that images bring about.

    Args:
        content: A file in float32.
        images: Each ``(1, 3, H, W)``.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]  # where onnxruntime has no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {INPUT: image}

    with tempfile.TemporaryDirectory() as scratch, quiet():
        target = Path(scratch) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(content),
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=QUANTIZED,
        )
        proto = onnx.load(target)
    strip(proto)
    return proto.SerializeToString()


def labels_kept(content: bytes, other: bytes, photos: Iterable[np.ndarray]) -> tuple[int, int]:
    """How many labels of another file are those of the first, and how many there are, in :data:`COMPARED` photos."""
    sessions = [open_session(source) for source in (content, other)]
    least_photos, least_labels = COMPARED
    equal = count = 0
    for number, images in enumerate(photos):
        if number >= least_photos and count >= least_labels:
            break
        expected, labels = (session.run(None, {INPUT: images})[-1] for session in sessions)
        equal, count = equal + int((expected == labels).sum()), count + labels.size
    return equal, count
