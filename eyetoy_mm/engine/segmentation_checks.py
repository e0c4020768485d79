"""The data of segmentation configs checked, and what their settings of labels say together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from eyetoy_mm.datasets.findings import Finding, other_classes
from eyetoy_mm.engine.config import datasets_of, evaluators_of
from eyetoy_mm.engine.trained_images import trained_images_findings
from eyetoy_mm.registry import type_name

_OPENMMLAB = ("mmcv", "mmseg", "mmdet", "mmpretrain")


def segmentation_config_findings(config: Config, *splits: str, masks: bool = True) -> list[Finding]:
    """What is wrong with the datasets that mmseg reads from folders, and with settings that contradict each other.

    Args:
        config: The config; its files are there.
        splits: Which of ``train``, ``val`` and ``test`` will be used.
        masks: Open some of the masks, too.
    """
    from eyetoy_mm.datasets.masks import Mask, colour_findings
    from eyetoy_mm.datasets.segmentation_files import look_at_segmentation, segmentation_class

    by_dataset: dict[str, tuple[list[str], dict]] = {}
    for split, dataset in datasets_of(config, splits):
        by_dataset.setdefault(repr(dataset), ([], dataset))[0].append(split)
    with DefaultScope.overwrite_default_scope("mmseg"):
        if not any(segmentation_class(dataset) for _, dataset in by_dataset.values()):
            return []
        found = [*_one_class(config), *_zero_labels(config), *_scoring(config, splits), *_fillings(config, splits)]
        images: dict[str, list[str]] = {}
        classes: list[tuple[str, tuple[str, ...]]] = []
        opened: list[tuple[str, Mask]] = []
        for used, dataset in by_dataset.values():
            names = ", ".join(dict.fromkeys(used))
            looked = look_at_segmentation(names, dataset, *labels_of_head(config), **({} if masks else dict(sample=0)))
            found += looked.findings
            opened += looked.masks
            for split in used:
                images.setdefault(split, []).extend(looked.images)
                classes.append((split, looked.classes))
    return [*found, *_other_classes(classes), *colour_findings(opened), *trained_images_findings(images)]


def _other_classes(classes: list[tuple[str, tuple[str, ...]]]) -> Iterator[Finding]:
    """Labels of other names in training than in validation or test: what is learnt is scored as something else.

    Args:
        classes: The split and the classes of each dataset, of which a split may have several.
    """
    trained = next((names for split, names in classes if split == "train"), ())
    for split, names in dict.fromkeys(classes):
        if told := other_classes(trained, names, split):
            yield Finding("classes", f"{told} Give both metainfo=dict(classes=(...))")


def labels_of_head(config: Config) -> tuple[int | None, int]:
    """How many classes the last decode head of a config tells apart, if it says so, and the label that it ignores."""
    head = _head(config)
    # A single output tells two classes apart.
    return 2 if head.get("out_channels") == 1 else head.get("num_classes"), head.get("ignore_index", 255)


def _head(config: Config) -> dict:
    heads = (config.get("model") or {}).get("decode_head") or {}
    return heads[-1] if isinstance(heads, list | tuple) else heads


def _one_class(config: Config) -> Iterator[Finding]:
    head = _head(config)
    if head.get("num_classes") == 1:
        yield Finding(
            "one class",
            "model.decode_head has num_classes=1, and the background is a class, too: softmax of one output is always "
            "1, and mmseg's scores of one class count every pixel. Set num_classes=2, out_channels=1, "
            'loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True) (or num_classes=2 alone), two classes in '
            "metainfo, background first, and masks of 0 and 1",
        )


def _zero_labels(config: Config) -> Iterator[Finding]:
    """Labels that are counted from elsewhere in training than in evaluation."""
    from eyetoy_mm.datasets.segmentation_files import segmentation_class

    settings: dict[bool, str] = {}
    for split, dataset in datasets_of(config, ("train", "val", "test")):
        steps = [step for step in dataset.get("pipeline") or () if type_name(step) == "LoadAnnotations"]
        given = dataset.get("reduce_zero_label", next((step.get("reduce_zero_label") for step in steps), None))
        kind = segmentation_class(dataset)
        if given is None and kind is not None:  # by itself a dataset counts as its class does
            parameter = inspect.signature(kind.__init__).parameters.get("reduce_zero_label")
            given = parameter is not None and parameter.default
        if given is not None:
            settings.setdefault(bool(given), split)
    if len(settings) > 1:
        message = (
            f"it is True in {settings[True]} and False in {settings[False]}: label 1 of the masks is the first class "
            "in one and the second in the other. Set it alike, unless their masks are numbered so"
        )
        yield Finding("reduce_zero_label", message, fatal=False)


def _scoring(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Metrics that would find no labels, or count those that training ignores."""
    ignored = labels_of_head(config)[1]
    told = set()
    for split, evaluator in evaluators_of(config, splits):
        if type_name(evaluator) != "IoUMetric" or evaluator.get("format_only"):
            continue
        for _, dataset in datasets_of(config, (split,)):
            if dataset.get("pipeline") and not _may_load_masks(dataset["pipeline"]):
                message = f"the pipeline of {split} loads no masks, and IoUMetric needs them: add LoadAnnotations"
                yield Finding(f"{split}_dataloader.dataset.pipeline", f"{message}, after Resize")
        scored = evaluator.get("ignore_index", 255)
        if scored != ignored and scored not in told:
            told.add(scored)
            message = (
                f"model.decode_head ignores label {ignored}, {split}_evaluator {scored}: pixels of {ignored} are not "
                f"learnt and count as mistakes. Set ignore_index={ignored} in IoUMetric too"
            )
            yield Finding("ignore_index", message, fatal=False)


def _fillings(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Labels of what crops, rotations and batches are filled with, that are learnt as a class."""
    classes, ignored = labels_of_head(config)
    preprocessor = (config.get("model") or {}).get("data_preprocessor") or config.get("data_preprocessor") or {}
    places: list[tuple[str, Any]] = [("data_preprocessor.seg_pad_val", preprocessor.get("seg_pad_val", ignored))]
    for split, dataset in datasets_of(config, splits):
        for step in dataset.get("pipeline") or () if split == "train" else ():
            fill = step.get("pad_val") if isinstance(step, dict) else None
            fill = fill.get("seg", ignored) if isinstance(fill, dict) else ignored
            if isinstance(step, dict):
                places.append((f"seg_pad_val of {type_name(step)}", step.get("seg_pad_val", ignored)))
                places.append((f"seg in pad_val of {type_name(step)}", fill))
    for place, value in dict(places).items():
        if isinstance(value, int) and value != ignored and 0 <= value < (classes or 256):
            message = (
                f"{place} is {value}: what is filled in beside the pictures is learnt as label {value}, and the head "
                f"ignores {ignored}. Set it to {ignored}"
            )
            yield Finding("filled labels", message, fatal=False)


def _may_load_masks(pipeline: list[Any]) -> bool:
    """Whether a pipeline may load masks; a user's own step may."""
    kinds = [step.get("type") if isinstance(step, dict) else type(step) for step in pipeline]
    for kind in [TRANSFORMS.get(kind) if isinstance(kind, str) else kind for kind in kinds]:
        name, module = getattr(kind, "__name__", ""), getattr(kind, "__module__", "")
        if module.partition(".")[0] not in _OPENMMLAB or "Annotation" in name or name == "TestTimeAug":
            return True
    return False
