"""Parts of a config that many look for: the datasets and the metrics of each split."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config


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
    """Each metric of each split."""
    for split in splits:
        evaluators = config.get(f"{split}_evaluator") or []
        for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
            yield split, evaluator
