"""The lists and folders of classification configs checked, and their classes against each other and the model's."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DefaultScope

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config import datasets_of
from eyetoy_mm.engine.hooks.images import share_to_skip


def classification_findings(config: Config, *splits: str) -> list[Finding]:
    """What is wrong with the lists, folders and classes of datasets of mmpretrain's ``CustomDataset`` kind.

    Args:
        config: The config; its files are there.
        splits: Which of ``train``, ``val`` and ``test`` will be used.
    """
    from eyetoy_mm.datasets.class_lists import classes_of, list_findings, open_lazily

    outputs = ((config.get("model") or {}).get("head") or {}).get("num_classes")
    found: dict[Finding, None] = {}
    classes: dict[str, tuple[str, ...]] = {}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        for split, dataset in datasets_of(config, splits):
            built = open_lazily(dataset)
            if built is None:
                continue
            skip = share_to_skip(config.get("skip_unreadable_images")) if split == "train" else 0.0
            wrong = list_findings(built, outputs, skip)
            found.update(dict.fromkeys(wrong))
            if not any(finding.fatal for finding in wrong):
                classes.setdefault(split, classes_of(built))
    return [*found, *_class_findings(classes, outputs)]


def _class_findings(classes: dict[str, tuple[str, ...]], outputs: int | None) -> Iterator[Finding]:
    trained = classes.get("train")
    for split, names in classes.items():
        if names and outputs is not None and len(names) != outputs:
            shown = f"{names[0]}, ..., {names[-1]}" if len(names) > 1 else names[0]
            message = f"{split} has {len(names)} classes ({shown}), and model.head num_classes={outputs}"
            yield Finding("classes", f"{message}: set num_classes={len(names)}, or check the folders and `classes`")
        elif trained and names and names != trained:
            pairs = zip(trained, names, strict=False)
            label, first, second = next(((i, a, b) for i, (a, b) in enumerate(pairs) if a != b), (0, "", ""))
            message = f"label {label} is {first!r} in training and {second!r} in {split}"
            yield Finding(
                "classes", f"{message}: both need the same classes in the same order. Set metainfo, or folders"
            )
