"""The annotation files of detection configs checked, each read once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from eyetoy_mm.datasets.coco_files import coco_findings, evaluator_findings, folder_of
from eyetoy_mm.datasets.coco_format import read_json
from eyetoy_mm.datasets.coco_kin import (
    lvis_evaluator_findings,
    lvis_v05_findings,
    lvis_v1_findings,
    objects365_v1_findings,
    objects365_v2_findings,
)
from eyetoy_mm.datasets.coco_panoptic import panoptic_evaluator_findings, panoptic_findings
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.voc_files import image_folder, voc_findings
from eyetoy_mm.engine.config import datasets_of, evaluators_of
from eyetoy_mm.engine.config_structure import datasets_in
from eyetoy_mm.engine.trained_images import trained_images_findings
from eyetoy_mm.paths import join
from eyetoy_mm.registry import type_name


class _Use(NamedTuple):
    """A dataset that one of our checks knows how to read."""

    split: str
    check: Callable[..., list[Finding]]
    path: str
    classes: Sequence[str]
    dataset: dict


def detection_findings(config: Config, *splits: str) -> list[Finding]:
    """What is wrong with the annotation files of mmdet's datasets and evaluators, and with their classes.

    Args:
        config: The config.
        splits: Which of ``train``, ``val`` and ``test`` will be used.
    """
    uses = list(_uses(config, ("train", "val", "test")))
    findings = list(_class_findings(uses))
    findings += _without_lvis(config, splits)
    uses = [use for use in uses if use.split in splits]
    read = _ReadOnce()
    for use, split in _alike(uses):
        reader = {} if use.check is voc_findings else dict(read=read)
        findings += use.check(use.path, split, use.classes, use.dataset, **reader)
    findings += _without_ground_truth(config, splits)
    findings += _unfiltered_objects(config, splits)
    findings += dict.fromkeys(_filtered_images(uses))
    findings += trained_images_findings(_images(uses, read))
    return _merged(findings + _evaluator_findings(config, uses, splits, read))


class _ReadOnce:
    """Reads JSON files, and keeps them for whoever asks next: datasets and evaluators share files of gigabytes."""

    def __init__(self) -> None:
        self._files: dict[str, Any] = {}

    def __call__(self, path: str, backend_args: dict | None = None) -> Any:
        if path not in self._files:
            self._files[path] = read_json(path, backend_args)
        return self._files[path]


def _images(uses: list[_Use], read: Callable[..., Any]) -> dict[str, list[str]]:
    """Paths of the images of each split, as far as COCO's files and VOC's lists tell them."""
    images: dict[str, list[str]] = {}
    for use in uses:
        try:
            if use.check is coco_findings:
                names = [image["file_name"] for image in read(use.path, use.dataset.get("backend_args"))["images"]]
                folder = folder_of(use.dataset)
            elif use.check is voc_findings:
                names = [f"{id_}.jpg" for id_ in Path(use.path).read_text(encoding="utf-8").splitlines()]
                folder = image_folder(use.dataset)
            else:
                continue
            images.setdefault(use.split, []).extend(os.path.join(folder, name) for name in names)
        except (OSError, ValueError, TypeError, KeyError):  # told by what checks the file
            continue
    return images


def _uses(config: Config, splits: tuple[str, ...]) -> Iterator[_Use]:
    """Datasets whose files one of our checks knows how to read; others are left alone."""
    from mmdet.registry import DATASETS

    for split, dataset in datasets_of(config, splits):
        kind: Any = dataset.get("type")
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        check = check_of(kind)
        if check and dataset.get("ann_file"):
            metainfo = kind._load_metainfo(dataset.get("metainfo"))
            path = join(dataset.get("data_root") or "", dataset["ann_file"])
            yield _Use(split, check, path, metainfo.get("classes") or (), dict(dataset, metainfo=metainfo))


def check_of(kind: Any) -> Callable[..., list[Finding]] | None:
    """What checks the files of a dataset's class: one that reads them as mmdet's own of COCO and its kin, or VOC."""
    from mmdet import datasets as mmdet

    for base, check, methods in (
        (mmdet.CocoPanopticDataset, panoptic_findings, ("load_data_list", "parse_data_info", "COCOAPI")),
        (mmdet.CocoDataset, coco_findings, ("load_data_list", "COCOAPI")),
        (mmdet.LVISV1Dataset, lvis_v1_findings, ("load_data_list",)),
        (mmdet.LVISV05Dataset, lvis_v05_findings, ("load_data_list",)),
        (mmdet.Objects365V1Dataset, objects365_v1_findings, ("load_data_list", "COCOAPI")),
        (mmdet.Objects365V2Dataset, objects365_v2_findings, ("load_data_list", "COCOAPI")),
        (mmdet.XMLDataset, voc_findings, ("load_data_list", "parse_data_info")),
    ):
        if all(getattr(kind, name, None) is getattr(base, name) for name in methods):
            return check
    return None


def _alike(uses: list[_Use]) -> list[tuple[_Use, str]]:
    """Each use once, and its splits: the same file is often used in the same way in validation and test."""
    groups: dict[str, list[_Use]] = {}
    for use in uses:
        groups.setdefault(repr((use.path, tuple(use.classes), use.dataset)), []).append(use)
    return [(group[0], ", ".join(dict.fromkeys(use.split for use in group))) for group in groups.values()]


def _class_findings(uses: list[_Use]) -> Iterator[Finding]:
    """Labels of other names in training than in validation or test: what is learnt is scored as something else."""
    train = next((use.classes for use in uses if use.split == "train"), None)
    for split, path, classes in dict.fromkeys((use.split, use.path, tuple(use.classes)) for use in uses):
        if train is None or list(classes) == list(train):
            continue
        unlike = [i for i, (first, second) in enumerate(zip(train, classes)) if first != second]
        differ = (
            f"label {unlike[0]} is {train[unlike[0]]!r} in training and {classes[unlike[0]]!r} in {split}"
            if unlike
            else f"{len(train)} in training, {len(classes)} in {split}"
        )
        yield Finding(
            "classes",
            f"{path} ({split}) has other classes than training: {differ}. Give all datasets the same "
            "metainfo=dict(classes=(...))",
        )


def _without_lvis(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Parts that need the package lvis, where it is not installed."""
    parts = {type_name(part) for _, part in (*datasets_of(config, splits), *evaluators_of(config, splits))}
    needing = sorted(name for name in parts if name.startswith("LVIS"))
    if needing and find_spec("lvis") is None:
        yield Finding("lvis", f"{', '.join(needing)} needs the package lvis, which is not installed: pip install lvis")


def _evaluator_findings(
    config: Config, uses: list[_Use], splits: tuple[str, ...], read: Callable[..., Any]
) -> list[Finding]:
    """What metrics of mmdet score against by a file of theirs, told of once where validation and test score alike."""
    found: dict[str, tuple[dict, list[_Use], list[str]]] = {}
    of_others: list[Finding] = []
    for split, evaluator in evaluators_of(config, splits):
        if evaluator.get("ann_file") and type_name(evaluator) == "LVISMetric":
            of_others += lvis_evaluator_findings(evaluator["ann_file"], split, evaluator, read)
        if evaluator.get("ann_file") and type_name(evaluator) == "CocoPanopticMetric":
            of_others += panoptic_evaluator_findings(evaluator["ann_file"], split, evaluator, read)
        used = [use for use in uses if use.split == split and use.check is coco_findings]
        if type_name(config[f"{split}_evaluator"]) == "MultiDatasetsEvaluator":  # which has a metric for each
            used = [use for use in used if use.path == join("", evaluator.get("ann_file") or "")]
        if used and evaluator.get("ann_file") and type_name(evaluator) == "CocoMetric":
            key = repr((evaluator, [(use.path, tuple(use.classes)) for use in used]))
            found.setdefault(key, (evaluator, used, []))[2].append(split)
    for evaluator, used, of in found.values():
        paths = [use.path for use in used]
        names = ", ".join(of)
        of_others += evaluator_findings(evaluator["ann_file"], names, used[0].classes, evaluator, paths, read)
    return of_others


def _filtered_images(uses: list[_Use]) -> Iterator[Finding]:
    """Data sets of evaluation that leave images out, and take another image where a step gives none."""
    for use in uses:
        if use.split != "train" and not use.dataset.get("test_mode") and use.dataset.get("filter_cfg"):
            message = "filter_cfg leaves images out of what is scored, as in training. Set it to True"
            yield Finding(f"{use.split}_dataloader.dataset.test_mode=False", message, fatal=False)


def _without_ground_truth(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Metrics of mmdet that score against what the pipeline loads, where it loads nothing: they fail at the first."""
    for split, evaluator in evaluators_of(config, splits):
        name = type_name(evaluator)
        of_pipeline = name == "VOCMetric" or (name == "CocoMetric" and not evaluator.get("ann_file"))
        if not of_pipeline or evaluator.get("format_only"):
            continue
        for _, dataset in datasets_of(config, (split,)):
            steps = {type_name(step): step for step in dataset.get("pipeline") or ()}
            packs = steps.get("PackDetInputs")
            if packs is None:
                continue
            if name == "CocoMetric" and "instances" not in packs.get("meta_keys", ()):
                message = "has no ann_file, without which its first evaluation fails: set ann_file to the dataset's"
                yield Finding(f"{split}_evaluator", f"CocoMetric {message}, by its whole path")
            elif name == "VOCMetric" and not any("Annotations" in step for step in steps):
                message = "the pipeline loads no boxes, at which VOCMetric's first evaluation fails: add"
                yield Finding(
                    f"{split}_dataloader.dataset.pipeline", f'{message} dict(type="LoadAnnotations", with_bbox=True)'
                )


_MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def _unfiltered_objects(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Pipelines of training that leave flat boxes, or empty masks, of what they cut off."""
    loader: Any = (config.get("train_dataloader") or {}) if "train" in splits else {}
    for key, dataset in datasets_in("train_dataloader.dataset", loader.get("dataset")):
        steps = list(_steps(dataset.get("pipeline") or ()))
        with_masks = any(step.get("with_mask") for step in steps)
        told = (_left_by(step, steps[index:], with_masks) for index, step in enumerate(steps))
        message = next(filter(None, told), None)
        if message:
            yield Finding(f"{key}.pipeline", message, fatal=False)


def _left_by(step: dict, later: list[dict], with_masks: bool) -> str | None:
    """What a step leaves that none of the later ones takes out; a flat box stops the run, maybe late."""
    filters = [each for each in later if type_name(each) == "FilterAnnotations"]
    wanted = (
        'dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), '
        f"{'by_mask=True, ' * with_masks}keep_empty=False) before PackDetInputs"
    )
    if _leaves_flat_boxes(step, with_masks) and not filters:
        return (
            f"{type_name(step)} leaves boxes without width or height of objects that it cuts off, and nothing takes "
            f"them out: the first one will stop the run. Add {wanted}"
        )
    if with_masks and _leaves_empty_masks(step) and not any(each.get("by_mask") for each in filters):
        remedy = "Give FilterAnnotations by_mask=True" if filters else f"Add {wanted}"
        return (
            f"{type_name(step)} leaves masks without a pixel, of objects that it cuts off but for a corner of their "
            f"box, and nothing takes them out: they teach that there is nothing. {remedy}"
        )
    return None


def _leaves_flat_boxes(step: dict, with_masks: bool) -> bool:
    """Whether a step moves or clips boxes, and keeps those of which nothing is left."""
    kind = type_name(step)
    if kind == "RandomCrop":
        return bool(step.get("recompute_bbox") and with_masks)
    if kind in ("MixUp", "CachedMixUp"):
        return step.get("bbox_clip_border", True)
    return kind in _MOVES


def _leaves_empty_masks(step: dict) -> bool:
    """Whether a step cuts masks, and keeps objects by their boxes; boxes made anew of masks are flat where they end."""
    kind = type_name(step)
    return kind in ("MinIoURandomCrop", *_MOVES) or (kind == "RandomCrop" and not step.get("recompute_bbox"))


def _steps(pipeline: Any) -> Iterator[dict]:
    """Every step of a pipeline in order; those that others choose from (RandomChoice, RandAugment) in their place."""
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get("transforms") or step.get("aug_space") or ())
        elif isinstance(step, list | tuple):
            yield from _steps(step)


# How the messages of the checks begin, after the file: "(val, test) ", "(val, evaluator) ".
_SPLITS = re.compile(r" \(((?:train|val|test|evaluator|, )+)\) ")


def _merged(findings: list[Finding]) -> list[Finding]:
    """What is wrong in the same way for several splits and evaluators, told of once."""
    groups: dict[tuple[str, str, bool], list[Finding]] = {}
    for finding in findings:
        key = finding.kind, _SPLITS.sub(" () ", finding.message, count=1), finding.fatal
        groups.setdefault(key, []).append(finding)
    merged = []
    for (_, message, _), group in groups.items():
        splits = [found[1] for finding in group if (found := _SPLITS.search(finding.message))]
        names = ", ".join(dict.fromkeys(", ".join(splits).split(", ")))
        merged.append(replace(group[0], message=message.replace(" () ", f" ({names}) ", 1)))
    return merged
