"""Parts of a config that many look for: its toolbox, the datasets and the metrics of each split."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config

TOOLBOXES = ("mmdet", "mmseg", "mmpretrain")


def toolbox_of(config: Config) -> str | None:
    """The toolbox of a config: its ``default_scope``, or where it has none, that of its datasets or its model.

    Configs whose types are classes need no scope (mmdet's of that kind have ``default_scope = None``), nor do those
    that write it before each type.
    """
    if config.get("default_scope"):
        return config["default_scope"]
    parts = [dataset for _, dataset in datasets_of(config, ("train", "val", "test"))] + [config.get("model") or {}]
    names = [name for part in parts for name in _packages(part.get("type"))]
    return next((name for name in names if name in TOOLBOXES), None)


def _packages(kind: object) -> list[str]:
    """Packages that a type is of: by the scope in its name, or those of a class and of what it derives from."""
    if isinstance(kind, str):
        return [kind.partition(".")[0]]
    return [base.__module__.partition(".")[0] for base in getattr(kind, "__mro__", ())]


def datasets_of(config: Config, splits: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Each plain dataset of each split, taken out of wrappers (RepeatDataset, ConcatDataset, ...)."""
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        pending = [loader["dataset"]] if loader else []
        while pending:
            dataset = pending.pop(0)
            inner = dataset.get("dataset", dataset.get("datasets"))
            if inner is None:
                yield split, dataset
            else:
                pending.extend(inner if isinstance(inner, list | tuple) else [inner])


def evaluators_of(config: Config, splits: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Each metric of each split, taken out of evaluators of their own (``type="MultiDatasetsEvaluator"``)."""
    for split in splits:
        evaluators = config.get(f"{split}_evaluator") or []
        if isinstance(evaluators, dict) and evaluators.get("metrics") is not None:
            evaluators = evaluators["metrics"]
        for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
            yield split, evaluator
