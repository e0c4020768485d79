"""What `eyetoy infer` is given: images, folders, patterns, videos, cameras and addresses, all as frames."""

from __future__ import annotations

import contextlib
import glob
import http.client
import itertools
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

import cv2
import mmcv
import numpy as np

from eyetoy_mm.datasets.files import files_below
from eyetoy_mm.datasets.splits import is_image
from eyetoy_mm.engine.preprocessing import Preprocessing, check_image_exists
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address, take_name

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
DOWNLOAD_LIMIT_VARIABLE = "EYETOY_MAX_DOWNLOAD"
_DOWNLOAD_LIMIT = 1 << 30  # bytes
_KEPT = 0.9  # of the frames that the head of a video says: some heads have it from duration and rate
_TIMEOUT = 30.0  # seconds without an answer
_SUFFIX_OF = {"image/jpeg": ".jpg", "image/png": ".png", "video/mp4": ".mp4", "video/webm": ".webm"}  # by MIME type


@dataclass(frozen=True)
class Source:
    """A thing that was asked for.

    Args:
        name: As it was given.
        place: The file or address; of a camera its number.
        target: Name of its results: a path without suffix, below the folder of the results.
        kind: ``image``, ``video``, ``camera`` or ``web``, which is one of the first two once it is here.
    """

    name: str
    place: str
    target: Path
    kind: str


@dataclass(frozen=True)
class Frame:
    """An image of a source: the whole, or one of a video.

    Args:
        source: Where it is from.
        name: What messages and results call it.
        target: Name of its results, as :attr:`Source.target`.
        load: Gives the image as the model's pipeline loads it, or raises what is wrong with it.
        rate: Frames a second, of a video; None for an image.
    """

    source: Source
    name: str
    target: Path
    load: Callable[[], np.ndarray]
    rate: float | None = None


# --- Which there are ------------------------------------------------------------------------------------------------


def find_sources(inputs: Sequence[str | Path], without: Path | None = None) -> list[Source]:
    """Resolve what was given: what is in folders, what patterns match; the rest stays as it is, there or not.

    Args:
        inputs: Files, folders (with all that is below them), patterns with ``*``, ``?`` or ``[]``, addresses, and
            numbers of cameras.
        without: A folder that is left out of folders and patterns above it: that of the results.

    Raises:
        UserError: A folder has no image or video, or a pattern matches nothing.
    """
    found: list[Source] = []
    used: set[Path] = set()
    for name in map(str, inputs):
        for place, target, kind in _resolve(name, without):
            # Images of one name may be from several folders, or of several formats.
            found.append(Source(place, place, take_name(target, used), kind))
    return found


def _resolve(name: str, without: Path | None) -> Iterator[tuple[str, Path, str]]:
    """Place, name of the results and kind of everything that an input stands for."""
    path = Path(name)
    if is_address(name):
        is_web = urlsplit(name).scheme.lower() in ("http", "https")
        stem = Path(unquote(urlsplit(name).path)).stem or "image"
        yield name, Path(stem), "web" if is_web else "image"
    elif path.is_dir():
        yield from _in_folder(path, without)
    elif path.exists():
        yield name, Path(path.stem), _kind(path)
    elif name.isdecimal():
        yield name, Path(f"camera{name}"), "camera"
    elif glob.has_magic(name):
        # Results of an earlier run are none of what is asked for, unless the pattern itself leads to them.
        skipped = None if _within(_fixed_part(name), without) else without
        found = sorted(glob.glob(name, recursive=True))
        matches = [match for match in found if _is_shown(Path(match)) and not _within(Path(match), skipped)]
        if not matches:
            raise UserError(f"no image or video matches {name}")
        yield from ((match, Path(Path(match).stem), _kind(Path(match))) for match in matches)
    else:
        yield name, Path(path.stem), "image"  # which is not there: told with the others that cannot be read


def _in_folder(folder: Path, without: Path | None) -> Iterator[tuple[str, Path, str]]:
    """The images and videos below a folder; names of results repeat the folders."""
    found = False
    for path in files_below(folder, lambda below: not _same(below, without)):
        if _is_shown(path):
            found = True
            yield str(path), path.relative_to(folder).with_suffix(""), _kind(path)
    if not found:
        raise UserError(f"there is no image or video in {folder}: none of its files ends in .jpg, .png, .tif, .mp4 ...")


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _within(path: Path, folder: Path | None) -> bool:
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern up to its first wildcard."""
    parts = Path(pattern).parts
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _is_shown(path: Path) -> bool:
    """Links to nothing and formats that are not read, too: told, where a folder would seem to have fewer images."""
    return _is_taken(path.name) and not path.name.startswith(".") and not path.is_dir()


def _is_taken(name: str) -> bool:
    return is_image(name) or PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _kind(path: Path) -> str:
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"


# --- Their frames ---------------------------------------------------------------------------------------------------


class FrameReader:
    """Reads sources as the model's pipeline loads files.

    Frames of videos, and windows of large images, go through a file that the pipeline reads: whatever its steps of
    loading are, they do what they do to an image of the test set.

    Args:
        preprocessing: The model's.
        scratch: Folder for that file, and for what is downloaded.
        frames: Of a video or camera at most; all of them when None.
    """

    def __init__(self, preprocessing: Preprocessing, scratch: Path, frames: int | None = None) -> None:
        self.preprocessing = preprocessing
        self.scratch = scratch
        self.frames = frames

    def of(self, source: Source) -> Iterator[Frame]:
        """The frames of a source; one whose ``load`` raises where it cannot be opened."""
        try:
            with self.local(source) as here:
                if here.kind == "image":
                    yield Frame(source, source.name, source.target, lambda: self.preprocessing.read(here.place))
                else:
                    yield from self._of_video(here)
        except UserError as error:
            yield Frame(source, source.name, source.target, _raising(error))

    @contextlib.contextmanager
    def local(self, source: Source) -> Iterator[Source]:
        """The source itself, or the one that it is while its download is here.

        Raises:
            UserError: It cannot be downloaded.
        """
        if source.kind != "web":
            yield source
            return
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            path = download(source.place, Path(folder))
            yield Source(source.name, str(path), source.target, _kind(path))

    def read_array(self, image: np.ndarray) -> np.ndarray:
        """What the pipeline would load from a file with these pixels.

        Args:
            image: ``(H, W)`` or ``(H, W, C)`` of 8 or 16 bits; of three channels, BGR.
        """
        path = self.scratch / "frame.png"
        if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 0]):
            raise UserError(f"an array of {image.shape} and {image.dtype} cannot be made an image")
        return self.preprocessing.read(path)

    def _of_video(self, source: Source) -> Iterator[Frame]:
        if source.kind == "video":
            check_image_exists(source.place)
        capture = cv2.VideoCapture(int(source.place) if source.kind == "camera" else source.place)
        try:
            if not capture.isOpened():
                raise UserError(_unopened(source))
            rate = capture.get(cv2.CAP_PROP_FPS)
            rate = rate if 1 <= rate <= 1000 else 25.0  # cameras and broken headers say 0
            index = 0
            while self.frames is None or index < self.frames:
                there, image = capture.read()
                if not there:
                    break
                name = f"{source.name}, frame {index}"
                yield Frame(source, name, source.target / f"{index:06}", _reading(self, image), rate)
                index += 1
            if index == 0:
                raise UserError(f"{source.name} has no frame that can be read; it may be damaged or cut short")
            promised = 0 if source.kind == "camera" else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if index < _KEPT * min(promised, self.frames or promised):
                raise UserError(
                    f"{source.name} ends after {index} of the {promised} frames that its head says; it may be damaged "
                    "or cut short"
                )
        finally:
            capture.release()


def count_frames(sources: Sequence[Source], frames: int | None = None) -> int | None:
    """How many frames there will be, as far as headers say; None where a camera has no end."""
    total = 0
    for source in sources:
        if source.kind == "camera" and frames is None:
            return None
        count = frames or 1
        if source.kind == "video" and Path(source.place).is_file():
            capture = cv2.VideoCapture(source.place)
            count = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            capture.release()
            count = min(count, frames or count)
        total += count if source.kind in ("video", "camera") else 1
    return total


def _unopened(source: Source) -> str:
    if source.kind == "camera":
        return (
            f"there is no camera {source.place} that can be opened: look for /dev/video* (Linux), and whether another "
            "program uses it or this one may"
        )
    return f"{source.name} is not a video that can be read; it may be damaged, or its codec missing in OpenCV"


def _reading(reader: FrameReader, image: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: reader.read_array(image)


def _raising(error: UserError) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        raise error

    return load


# --- Downloads ------------------------------------------------------------------------------------------------------


def download(address: str, folder: Path) -> Path:
    """Download an image or a video.

    Args:
        address: ``http://`` or ``https://``.
        folder: Where the file goes, under a name of its own.

    Returns:
        The file; its suffix is that of the address, or of the type that the server names.

    Raises:
        UserError: The server does not answer or refuses, it sends a web page, or more bytes than
            ``EYETOY_MAX_DOWNLOAD`` (1 GiB).
    """
    limit = _download_limit()
    request = urllib.request.Request(address, headers={"User-Agent": "eyetoy-mm"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
            if kind in ("text/html", "application/xhtml+xml"):
                raise UserError(f"{address} is a web page, not an image: take the address of the image itself")
            remote = PurePosixPath(urlsplit(address).path)
            suffix = remote.suffix.lower() if _is_taken(remote.name) else _SUFFIX_OF.get(kind, ".png")
            handle, name = tempfile.mkstemp(suffix, "download-", folder)
            with open(handle, "wb") as file:
                _copy(answer, file, limit, address)
    except urllib.error.HTTPError as error:
        raise UserError(f"{address} cannot be downloaded: the server says {error.code} {error.reason}") from error
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # no server, no name, no route, timeouts, addresses that are none
        reason = getattr(error, "reason", error)
        raise UserError(f"{address} cannot be downloaded: {reason}") from error
    return Path(name)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], limit: int, address: str) -> None:
    size = 0
    announced = int(answer.headers.get("Content-Length") or 0)
    while size <= limit and announced <= limit and (block := answer.read(1 << 20)):
        size += len(block)
        file.write(block)
    if max(size, announced) > limit:
        raise UserError(
            f"{address} has more than {limit:,} bytes, and was not downloaded; {DOWNLOAD_LIMIT_VARIABLE}=BYTES allows "
            "more"
        )
    if size < announced:
        raise UserError(f"{address} was cut short: {size:,} of {announced:,} bytes came")


def _download_limit() -> int:
    text = os.environ.get(DOWNLOAD_LIMIT_VARIABLE, str(_DOWNLOAD_LIMIT))
    if not re.fullmatch(r"[1-9]\d*", text):
        raise UserError(f"{DOWNLOAD_LIMIT_VARIABLE} must be a number of bytes, got {text!r}")
    return int(text)


# --- Pictures of frames ---------------------------------------------------------------------------------------------


class PictureWriter:
    """Writes pictures of frames: PNG for images, a video for videos and cameras, or PNG for each of their frames.

    Args:
        folder: Where they go.
        as_images: Write the frames of videos as images, too.
    """

    def __init__(self, folder: Path, as_images: bool = False) -> None:
        self.folder = folder
        self.as_images = as_images
        self._source: Source | None = None
        self._video: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, frame: Frame, picture: np.ndarray) -> Path:
        """Write the picture of a frame, RGB of 8 bits; return the file that it is in.

        Raises:
            UserError: OpenCV cannot write videos here.
        """
        if frame.rate is None or self.as_images:
            target = self._file(frame.target, ".png")
            mmcv.imwrite(mmcv.rgb2bgr(picture), str(target))
            return target
        target = self._file(frame.source.target, ".mp4")
        if self._source != frame.source:
            self._begin(frame, target, picture)
        if picture.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size)
        assert self._video is not None
        self._video.write(mmcv.rgb2bgr(picture))
        return target

    def _file(self, target: Path, suffix: str) -> Path:
        path = self.folder / target.with_name(target.name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _begin(self, frame: Frame, target: Path, picture: np.ndarray) -> None:
        self.close()
        self._source, self._size = frame.source, picture.shape[1::-1]
        self._video = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), frame.rate or 25.0, self._size)
        if not self._video.isOpened():
            self.close()
            raise UserError(f"OpenCV cannot write the video {target} here: take --frames-as-images")

    def close(self) -> None:
        """End the video that is being written."""
        if self._video is not None:
            self._video.release()
        self._source = self._video = None
