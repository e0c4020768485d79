"""The data of a config opened and looked at, every file: what a run would meet in days, in minutes."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from eyetoy_mm.datasets.corner_boxes import boxes_of, instance_findings
from eyetoy_mm.datasets.files import why_not_listed
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.guarded_loading import annotated_size, image_loader, mask_step, rule_of
from eyetoy_mm.datasets.image_files import Fault, ImageReport, examine_file, orientation_fault
from eyetoy_mm.datasets.masks import Labelling, Mask, colour_findings, look_at_mask, together_findings
from eyetoy_mm.engine.config import datasets_of
from eyetoy_mm.engine.config_parts import toolbox_of
from eyetoy_mm.engine.data_checks import check_paths, data_findings
from eyetoy_mm.engine.detection_checks import check_of
from eyetoy_mm.engine.segmentation_checks import labels_of_head
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import join
from eyetoy_mm.registry import type_name

SPLITS = ("train", "val", "test")
_TOLD_OF_FILES = {"images of training", "contradictory labels"}  # of their bytes here, where others go by their names


@dataclass(frozen=True)
class Loader:
    """How a dataset loads its files.

    Args:
        color_type: How images are decoded.
        backend: By what.
        backend_args: Of mmengine's file client.
        labelling: What its masks of labels stand for; None where there are none.
    """

    color_type: str = "color"
    backend: str = "cv2"
    backend_args: dict | None = None
    labelling: Labelling | None = None


@dataclass(frozen=True)
class Task:
    """Files of one sample, and the number of their loader; equal ones are opened once."""

    image: str
    mask: str | None
    loader: int


@dataclass(frozen=True)
class Sample:
    """What was found in the files of a task.

    Args:
        image: Of the image.
        mask: Of its mask, if it has one.
    """

    image: ImageReport
    mask: Mask | None = None


@dataclass
class Report:
    """What was found in the data of a config.

    Args:
        findings: With the split they are of; without one where a message says it.
        images: How many images there are, each counted once.
        not_opened: Samples without a file of their own, as those of CIFAR and videos.
        unit: What ``counts`` counts: ``images``, ``boxes`` or ``pixels``.
        counts: Of each split: how many there are of each class, by name or, where it has none, by number.
        boxes: Of each split: width and height in pixels of every box ``(N, 2)``.
        seconds: How long it took.
    """

    findings: list[tuple[str, Finding]] = field(default_factory=list)
    images: int = 0
    not_opened: int = 0
    unit: str = "images"
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0

    def fatal(self) -> int:
        """How many findings there are with which a run would be wrong."""
        return sum(finding.fatal for _, finding in self.findings)


@dataclass(frozen=True)
class _Entry:
    """What the list of a dataset says of a sample.

    Args:
        name: Its path, or its number.
        task: Its files; None if it has none of its own.
        size: Width and height by the annotation of its boxes.
        labels: Of the image in classification, of each box in detection.
        boxes: Width and height of each.
    """

    name: str
    task: Task | None
    size: tuple[int, int] | None
    labels: tuple[int, ...]
    boxes: tuple[tuple[float, float], ...]


@dataclass
class _Part:
    """A dataset of a split, its samples in their order, and what was found in the files of each."""

    split: str
    dataset: Any
    loader: Loader
    entries: list[_Entry]
    samples: list[Sample | None] = field(default_factory=list)

    def opened(self) -> Iterator[tuple[_Entry, Task, Sample]]:
        """Each sample with files."""
        for entry, sample in zip(self.entries, self.samples):
            if entry.task is not None and sample is not None:
                yield entry, entry.task, sample


def check_dataset(
    config: Config,
    splits: Iterable[str] = SPLITS,
    jobs: int = 1,
    track: Callable[[Iterator[Sample], int], Iterable[Sample]] = lambda samples, total: samples,
) -> Report:
    """Look at everything that the datasets of a config consist of.

    Args:
        config: As :func:`~eyetoy_mm.engine.config.load_config` gives it.
        splits: Which of ``train``, ``val`` and ``test``; those that the config does not have are left out.
        jobs: Processes that open files.
        track: Passes the samples on and shows how far it is; their number is the second argument.

    Returns:
        What was found.

    Raises:
        UserError: The config has none of these splits, or a process was killed, as by a lack of memory.
    """
    splits = list(splits)
    if not any(config.get(f"{split}_dataloader") for split in splits):
        raise UserError(
            f"the config has no {' and no '.join(f'{split}_dataloader' for split in splits)}: no data to open"
        )
    began = time.monotonic()
    report, loaders = Report(), list[Loader]()
    report.unit = {"mmdet": "boxes", "mmseg": "pixels"}.get(toolbox_of(config) or "", "images")
    splits = [split for split in splits if _is_there(config, split, report)]
    told = data_findings(config, *splits, masks=False)
    report.findings += [("", finding) for finding in told if finding.kind not in _TOLD_OF_FILES]
    parts = [part for split in splits for part in _open_split(config, split, loaders, report)]
    tasks = list(dict.fromkeys(entry.task for part in parts for entry in part.entries if entry.task is not None))
    found = dict(zip(tasks, track(_look_at_all(tasks, loaders, jobs), len(tasks))))
    report.images = len(tasks)
    names = next((classes for part in parts if (classes := tuple(part.dataset.metainfo.get("classes") or ()))), ())
    for part in parts:
        part.samples = [None if entry.task is None else found[entry.task] for entry in part.entries]
        report.not_opened += part.samples.count(None)
        report.findings += [(part.split, finding) for finding in _findings_of_files(part, config)]
        if report.unit == "boxes" and check_of(type(part.dataset)) is None:
            report.findings += [(part.split, finding) for finding in instance_findings(part.dataset, limit=None)]
        _count_classes(part, names, report)
    report.findings += _findings_across(parts, config)
    report.findings += _unseen_classes(report.counts)
    report.findings += [] if report.fatal() else _never_there(report.counts)
    report.findings = list(dict.fromkeys(report.findings))  # of files that several datasets have
    report.seconds = time.monotonic() - began
    return report


def _is_there(config: Config, split: str, report: Report) -> bool:
    """Whether a config has a split, and its files are there; what is missing goes into the report."""
    try:
        check_paths(config, split)
    except UserError as error:
        report.findings.append((split, Finding("missing data", str(error))))
        return False
    return bool(config.get(f"{split}_dataloader"))


def _open_split(config: Config, split: str, loaders: list[Loader], report: Report) -> Iterator[_Part]:
    """The datasets of a split, built; those that cannot be go into the report, loaders that are new into theirs."""
    for _, settings in datasets_of(config, (split,)):
        try:
            dataset = _build(config, settings)
            loader = _loader_of(config, dataset)
            if loader not in loaders:
                loaders.append(loader)
            number = loaders.index(loader)
            tells = hasattr(dataset, "get_data_info")  # mmpretrain's MultiTaskDataset does not
            infos = (dataset.get_data_info(index) if tells else {} for index in range(len(dataset)))
            entries = [_entry(info, index, number) for index, info in enumerate(infos)]
        except OSError as error:
            report.findings.append((split, Finding("unreadable dataset", why_not_listed(error))))
            continue
        except Exception as error:  # whatever the toolboxes raise of data that they do not expect
            if not report.fatal():  # else it is what was found, most likely
                listed = join(settings.get("data_root") or "", settings.get("ann_file") or "")
                reason = f"{type_name(settings)} cannot read {listed}: {type(error).__name__}: {error}"
                report.findings.append((split, Finding("unreadable dataset", reason)))
            continue
        yield _Part(split, dataset, loader, entries)


def _build(config: Config, settings: dict) -> Any:
    # What pycocotools prints would be among the findings.
    with DefaultScope.overwrite_default_scope(toolbox_of(config)), contextlib.redirect_stdout(io.StringIO()):
        return DATASETS.build(dict(settings, lazy_init=False) if settings.get("lazy_init") else settings)


def _loader_of(config: Config, dataset: Any) -> Loader:
    image = image_loader(dataset.pipeline)
    decoding = {} if image is None else dict(color_type=image.color_type, backend=image.imdecode_backend)
    step = mask_step(dataset.pipeline)
    if toolbox_of(config) == "mmseg" and step is not None:
        decoding.update(labelling=Labelling.of(dataset, step, *labels_of_head(config)))
    return Loader(**decoding, backend_args=getattr(dataset, "backend_args", None))


def _entry(data: dict, index: int, loader: int) -> _Entry:
    path, instances = data.get("img_path"), data.get("instances", ())
    boxes = list(boxes_of(instances))
    whole = data.get("gt_label", [])  # a dict where several tasks have labels of their own
    labels = [box.get("bbox_label", 0) for box in boxes]
    labels += [] if isinstance(whole, dict) else np.atleast_1d(whole).tolist()
    return _Entry(
        name=path if isinstance(path, str) else str(index),
        task=Task(path, data.get("seg_map_path"), loader) if isinstance(path, str) else None,
        size=annotated_size(data),
        labels=tuple(map(int, labels)),
        boxes=tuple((x2 - x1, y2 - y1) for x1, y1, x2, y2 in (box["bbox"] for box in boxes)),
    )


_loaders: list[Loader] = []  # of a process that opens files


def _look_at_all(tasks: list[Task], loaders: list[Loader], jobs: int) -> Iterator[Sample]:
    if jobs <= 1 or len(tasks) < 2:
        yield from (_look_at(task, loaders[task.loader]) for task in tasks)
        return
    # Forked, as the workers of data loaders are: what loads masks need not be pickled, nothing is imported again.
    context = multiprocessing.get_context("fork")
    chunk = max(1, min(32, len(tasks) // (4 * jobs)))
    with _one_thread_of_opencv(), ProcessPoolExecutor(jobs, context, _start, (loaders,)) as pool:
        try:
            yield from pool.map(_look_at_in_process, tasks, chunksize=chunk)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that opened images was killed, as it happens when the memory is full: try fewer, --jobs 1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after ctrl-c; one that is not waited for may fail at the exit


@contextlib.contextmanager
def _one_thread_of_opencv() -> Iterator[None]:
    """OpenCV's threads end before a fork: a process would wait forever for those of its parent."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start(loaders: list[Loader]) -> None:
    _loaders[:] = loaders


def _look_at_in_process(task: Task) -> Sample:
    return _look_at(task, _loaders[task.loader])


def _look_at(task: Task, loader: Loader) -> Sample:
    """Open the files of a task."""
    with _heard() as said:
        image, _ = examine_file(task.image, loader.color_type, loader.backend, loader.backend_args)
    damage = _DAMAGE.search(said())
    if damage and image.shape is not None:
        fault = Fault(_DAMAGED.kind, _DAMAGED.message, fatal=False, detail=damage[0].strip())
        image = replace(image, faults=(*image.faults, fault))
    if task.mask is None:
        return Sample(image)
    if loader.labelling is not None:
        return Sample(image, look_at_mask(task.mask, loader.labelling))
    report, pixels = examine_file(task.mask, "unchanged", "cv2", loader.backend_args)
    return Sample(image, Mask(report, None if pixels is None else (pixels.shape[1], pixels.shape[0])))


# What libjpeg, libpng and OpenCV write where they go on, or give up; warnings of tags and profiles are no damage.
_DAMAGE = re.compile(r"^(Corrupt JPEG data|Premature end of JPEG|libpng error|\[ERROR).*$", re.MULTILINE)
_DAMAGED = Fault("damaged image", "what could not be decoded of these is loaded grey or odd; copy or download it again")


@contextlib.contextmanager
def _heard() -> Iterator[Callable[[], str]]:
    """Keep from the terminal what decoders write to it, none of which names a file; what is yielded gives it."""
    with tempfile.TemporaryFile() as file:

        def said() -> str:
            return text

        text, kept = "", os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")


def _findings_of_files(part: _Part, config: Config) -> Iterator[Finding]:
    """What is wrong with files of a dataset, those of the same fault together."""
    rule = rule_of(part.dataset.pipeline, config.get("image_orientation"))
    faults: dict[Fault, list[str]] = defaultdict(list)
    for entry, task, sample in part.opened():
        for fault in sample.image.faults:
            faults[fault].append(fault.of(task.image))
        for fault in sample.mask.report.faults if sample.mask else ():
            faults[fault].append(fault.of(str(task.mask)))
        fault_of_pair = _compare(entry, sample, rule)
        if fault_of_pair is not None:
            faults[fault_of_pair].append(fault_of_pair.of(task.image))
    for fault, paths in faults.items():
        yield Finding(fault.kind, fault.message, tuple(paths), fatal=fault.fatal)
    yield from _mixed_channels(part)
    if part.loader.labelling is not None:
        yield from together_findings(_masks(part), part.loader.labelling)


def _masks(part: _Part) -> list[tuple[str, Mask]]:
    return [(str(task.mask), sample.mask) for _, task, sample in part.opened() if sample.mask is not None]


def _mixed_channels(part: _Part) -> Iterator[Finding]:
    """Images of other channels than most: they do not stack to a batch. Only ``color_type="unchanged"`` gives such."""
    channels: dict[int, list[str]] = defaultdict(list)
    for _, task, sample in part.opened():
        if sample.image.shape is not None:
            channels[sample.image.shape[2] if len(sample.image.shape) > 2 else 1].append(task.image)
    if len(channels) > 1:
        most = max(channels, key=lambda count: len(channels[count]))
        others = tuple(f"{path} ({count})" for count, paths in channels.items() if count != most for path in paths)
        message = f"these are loaded with other channels than the {most} of most; color_type='color' gives 3 to all"
        yield Finding("number of channels", message, others)


def _compare(entry: _Entry, sample: Sample, rule: str | None) -> Fault | None:
    """Compare the image with the annotation of boxes, or with its mask."""
    annotated = entry.size or (sample.mask.size if sample.mask else None)
    header, shape = sample.image.header, sample.image.shape
    if header is None or shape is None or annotated is None:
        return None
    return orientation_fault(header, annotated, (shape[1], shape[0]), rule)


def _count_classes(part: _Part, names: tuple[str, ...], report: Report) -> None:
    """Add the classes of a dataset to those of its split, and its boxes; names are for a dataset that has none."""
    counts = Counter(label for entry in part.entries for label in entry.labels)
    for sample in part.samples:
        if sample is not None and sample.mask is not None and sample.mask.counts is not None:
            counts.update(dict(enumerate(sample.mask.counts)))
    names = tuple(part.dataset.metainfo.get("classes") or names)
    ignored = None if part.loader.labelling is None else part.loader.labelling.ignored
    into = report.counts.setdefault(part.split, dict.fromkeys(names, 0))
    for label, count in sorted(counts.items()):
        if label != ignored and count:
            name = names[label] if 0 <= label < len(names) else str(label)
            into[name] = into.get(name, 0) + count
    boxes = [box for entry in part.entries for box in entry.boxes]
    if boxes:
        known = report.boxes.get(part.split, np.empty((0, 2)))
        report.boxes[part.split] = np.concatenate([known, np.array(boxes, dtype=float)])


def _findings_across(parts: list[_Part], config: Config) -> Iterator[tuple[str, Finding]]:
    """What only several files show: images of training in evaluation, one image of several labels, wrong labels."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    labels: list[str] = []
    leaks: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        for entry, task, sample in part.opened():
            if not sample.image.digest:
                continue
            if part.split != "train":
                if sample.image.digest in seen:
                    leaks[part.split].append(_pair(seen[sample.image.digest][0], task.image))
                continue
            first, known = seen.setdefault(sample.image.digest, (task.image, entry.labels))
            if known != entry.labels and toolbox_of(config) == "mmpretrain":
                labels.append(_pair(first, task.image))
    if labels:
        message = "the same image is there with several labels, of which a model can learn one at most; keep one"
        yield "train", Finding("contradictory labels", message, tuple(labels), fatal=False)
    for split, pairs in leaks.items():
        message = (
            "these images are trained on too, byte for byte: figures on them say how well the model remembers. Take "
            "them off one of the two, unless this is meant"
        )
        yield split, Finding("images of training", message, tuple(pairs), fatal=False)
    yield from _labels_out_of_range(parts, config)
    yield from (("", finding) for finding in colour_findings([mask for part in parts for mask in _masks(part)]))


def _pair(first: str, second: str) -> str:
    return second if first == second else f"{second} = {first}"


def _labels_out_of_range(parts: list[_Part], config: Config) -> Iterator[tuple[str, Finding]]:
    """Labels of classification for which the head has no output."""
    number = ((config.get("model") or {}).get("head") or {}).get("num_classes")
    if toolbox_of(config) != "mmpretrain" or number is None:
        return
    for part in parts:
        wrong = [
            f"{entry.name} (label {label})"
            for entry in part.entries
            for label in entry.labels
            if not 0 <= label < number
        ]
        if wrong:
            message = f"model.head has num_classes={number}, labels 0 to {number - 1}; correct the labels or the head"
            yield part.split, Finding("label out of range", message, tuple(wrong))


def _unseen_classes(counts: dict[str, dict[str, int]]) -> Iterator[tuple[str, Finding]]:
    """Classes of evaluation that training has no example of."""
    trained = counts.get("train")
    for split in ("val", "test"):
        unseen = [name for name, count in counts.get(split, {}).items() if trained and count and not trained.get(name)]
        if unseen:
            message = "no training image has these classes, and a model does not find what it has never seen"
            yield split, Finding("class without training", message, tuple(unseen), fatal=False)


def _never_there(counts: dict[str, dict[str, int]]) -> Iterator[tuple[str, Finding]]:
    """Classes that nothing has an example of, where others are there."""
    trained = counts.get("train") or {}
    nowhere = [name for name in trained if not any(of.get(name) for of in counts.values())]
    if nowhere and len(nowhere) < len(trained):
        message = (
            "no image has these classes: if they should, labels are counted from elsewhere than the classes are (from "
            "1, or by reduce_zero_label)"
        )
        yield "train", Finding("class without example", message, tuple(nowhere), fatal=False)
