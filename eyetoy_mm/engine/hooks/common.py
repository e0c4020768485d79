"""What several hooks need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from eyetoy_mm.errors import UserError


def unwrapped(runner: Runner) -> Any:  # a module; types of its attributes are not known
    """The model itself, where it is wrapped for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def name_of(dataset: Any) -> str:
    """The class of a dataset, out of wrappers: what a config names."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return type(dataset).__name__


def check_same(train: Sequence[str], val: Sequence[str], advice: str) -> None:
    """Refuse classes that differ in training and validation; as many in both, or none where they have no names."""
    for label, (first, second) in enumerate(zip(train, val)):
        if first != second:
            raise UserError(
                f"label {label} is {first!r} in training and {second!r} in validation: both need the same classes in "
                f"the same order. {advice}"
            )


def samples_of(data_batch: Any) -> Iterator[Any]:
    """Every data sample of a batch, wherever semi-supervised and other loaders put it."""
    if hasattr(data_batch, "metainfo"):
        yield data_batch
    elif isinstance(data_batch, Mapping):
        for key in data_batch:
            yield from samples_of(data_batch[key]) if key != "inputs" else ()
    elif isinstance(data_batch, list | tuple):
        for part in data_batch:
            yield from samples_of(part)


def image_paths(data_batch: Any) -> list[str]:
    """Paths of the images of a batch, in its order; none where its samples do not say."""
    return [str(sample.metainfo["img_path"]) for sample in samples_of(data_batch) if sample.metainfo.get("img_path")]
