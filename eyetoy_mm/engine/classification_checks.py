"""The lists and folders of classification configs checked, and their classes against each other and the model's."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from eyetoy_mm.datasets.findings import Finding, other_classes
from eyetoy_mm.engine.config import datasets_of
from eyetoy_mm.engine.config_places import class_of
from eyetoy_mm.engine.hooks.images import share_to_skip
from eyetoy_mm.engine.trained_images import trained_images_findings
from eyetoy_mm.registry import type_name


def classification_findings(config: Config, *splits: str) -> list[Finding]:
    """What is wrong with the lists, folders and classes of mmpretrain's datasets of images and labels.

    Args:
        config: The config; its files are there.
        splits: Which of ``train``, ``val`` and ``test`` will be used.
    """
    from eyetoy_mm.datasets.class_lists import look_at_list

    head = (config.get("model") or {}).get("head") or {}
    outputs = head.get("num_classes")
    found: dict[Finding, None] = {}
    classes: list[tuple[str, tuple[str, ...]]] = []
    images: dict[str, list[str]] = {}
    labels: list[tuple[str, dict[str, int]]] = []
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        found.update(dict.fromkeys(_one_class(head)))
        for split, dataset in datasets_of(config, splits):
            skip = share_to_skip(config.get("skip_unreadable_images")) if split == "train" else 0.0
            listed = look_at_list(dataset, outputs, skip)
            if listed is None:
                continue
            found.update(dict.fromkeys(listed.findings))
            if listed.several and _tells_one_class(head):
                found[_SEVERAL_LABELS] = None
            images.setdefault(split, []).extend(listed.paths)
            labels.append((split, listed.labels))
            if listed.classes and not any(finding.fatal for finding in listed.findings):
                classes.append((split, listed.classes))
    found.update(dict.fromkeys(_class_findings(classes, outputs)))
    if not any(finding.kind == "classes" for finding in found):
        found.update(dict.fromkeys(_label_findings(labels)))
    return [*found, *trained_images_findings(images)]


_SEVERAL_LABELS = Finding(
    "several labels",
    "the images of a dataset have several labels, and model.head tells one of them all: take "
    'dict(type="MultiLabelLinearClsHead", ...), and a metric such as dict(type="MultiLabelMetric")',
)


def _one_class(head: dict) -> Iterator[Finding]:
    """A softmax of one output, which is always 1."""
    loss = head.get("loss") or {}
    by_softmax = not loss.get("use_sigmoid") and loss.get("mode") != "multi_label"
    usual = type_name(loss or dict(type="CrossEntropyLoss")) in ("CrossEntropyLoss", "LabelSmoothLoss")
    if head.get("num_classes") == 1 and by_softmax and usual and _tells_one_class(head):
        yield Finding(
            "one class",
            "model.head has num_classes=1, and softmax of one output is always 1: the loss is 0 and the accuracy 100, "
            "whatever is learnt. Give it two classes, such as what is looked for and everything else",
        )


def _tells_one_class(head: dict) -> bool:
    """Whether a head is one of mmpretrain's for one class an image; those of several labels are of another kind."""
    return any(base.__name__ == "ClsHead" for base in getattr(class_of(head, MODELS), "__mro__", ()))


def _class_findings(classes: list[tuple[str, tuple[str, ...]]], outputs: int | None) -> Iterator[Finding]:
    """Classes of each dataset, of which a split may have several, against the model's and the first one's of training.

    Args:
        classes: The split and the classes of each dataset that names them.
        outputs: How many classes the model tells apart; None if it does not say.
    """
    trained = next((names for split, names in classes if split == "train"), None)
    for split, names in classes:
        if outputs is not None and len(names) != outputs:
            shown = f"{names[0]}, ..., {names[-1]}" if len(names) > 1 else names[0]
            message = f"{split} has {len(names)} classes ({shown}), and model.head num_classes={outputs}"
            yield Finding("classes", f"{message}: set num_classes={len(names)}, or check the folders and `classes`")
        elif trained and names != trained:
            counts = f"training has {len(trained)} classes and {split} {len(names)}: both need the same."
            yield Finding("classes", f"{other_classes(trained, names, split) or counts} Set metainfo, or folders")


def _label_findings(labels: list[tuple[str, dict[str, int]]]) -> Iterator[Finding]:
    """Folders whose images have another label than those of a folder of that name in training.

    Args:
        labels: The split and the label of each folder of each dataset, where folders have one each.
    """
    trained: dict[str, int] = {}
    for split, of in labels:
        moved = next((name for name, label in of.items() if trained.get(name, label) != label), None)
        if moved is not None:
            message = f"images in {moved} have label {trained[moved]} in training and {of[moved]} in {split}"
            yield Finding("classes", f"{message}: number the classes alike in both, as training does")
        if split == "train":
            trained = of | trained
