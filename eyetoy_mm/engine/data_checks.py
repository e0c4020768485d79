"""The data of a config checked before anything is built: what takes seconds for a data set of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from eyetoy_mm.datasets.findings import Finding, repeated, tell
from eyetoy_mm.datasets.outside import find_outside
from eyetoy_mm.engine.classification_checks import classification_findings
from eyetoy_mm.engine.config import datasets_of, evaluators_of
from eyetoy_mm.engine.config_parts import toolbox_of
from eyetoy_mm.engine.detection_checks import detection_findings
from eyetoy_mm.engine.pipeline_checks import late_annotation_findings
from eyetoy_mm.engine.segmentation_checks import segmentation_config_findings
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import is_address, join


def check_data(config: Config, *splits: str) -> None:
    """Check that the files and folders of the datasets exist, and that detection's annotations fit the config.

    What lies at an address (``s3://...``) is left to mmengine's file client; COCO files there are read.

    Args:
        config: The config.
        splits: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UserError: One message with everything that is missing, where it was looked for, and how to point elsewhere; or
            what is wrong with annotation files, and what to do.
    """
    check_paths(config, *splits)
    tell(data_findings(config, *splits))


def data_findings(config: Config, *splits: str, masks: bool = True) -> list[Finding]:
    """What is wrong with the annotations of the datasets, as far as it can be told without opening images.

    Args:
        config: The config; its files are there.
        splits: Which of ``train``, ``val`` and ``test`` will be used.
        masks: Open some of the masks, too.
    """
    datasets = list(datasets_of(config, splits))
    findings = [finding for _, dataset in datasets for finding in _outside_findings(dataset)]
    findings += dict.fromkeys(finding for split, dataset in datasets for finding in _old_names(split, dataset))
    if toolbox_of(config) != "mmdet":  # where the names are looked for in the file
        misnamed = dict.fromkeys(finding for split, dataset in datasets for finding in _odd_names(split, dataset))
        if misnamed:  # what else is looked at goes by these names
            return [*findings, *misnamed]
    if "train" in splits and toolbox_of(config) in ("mmdet", "mmseg"):
        findings += late_annotation_findings(config, str(toolbox_of(config)))
    if toolbox_of(config) == "mmdet":
        findings += detection_findings(config, *splits)
    elif toolbox_of(config) == "mmseg":
        findings += segmentation_config_findings(config, *splits, masks=masks)
    elif toolbox_of(config) == "mmpretrain":
        findings += classification_findings(config, *splits)
    return findings


def check_paths(config: Config, *splits: str) -> None:
    """Check that the files and folders of the datasets exist; addresses are taken to do.

    Args:
        config: The config.
        splits: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UserError: What is missing, where it was looked for, and how to point elsewhere.
    """
    missing: dict[str, list[str]] = {}
    paths = [(split, path) for split, dataset in datasets_of(config, splits) for path in _dataset_paths(dataset)]
    paths += [(split, e["ann_file"]) for split, e in evaluators_of(config, splits) if e.get("ann_file")]
    for split, path in paths:
        if not is_address(path) and not Path(path).exists():
            missing.setdefault(str(Path(path)), []).append(split)
    if missing:
        lines = "\n".join(f"  {path}  ({', '.join(dict.fromkeys(splits))})" for path, splits in missing.items())
        roots = ", ".join(
            dict.fromkeys(str(d["data_root"]) for _, d in datasets_of(config, splits) if d.get("data_root"))
        )
        raise UserError(
            f"the dataset is not there. Missing, from the current folder {Path.cwd()}:\n{lines}\n"
            f"Put it at {roots or 'these paths'} (a symbolic link will do), or say where it is: --data-root FOLDER"
        )


def _outside_findings(dataset: dict) -> Iterator[Finding]:
    """What a list of images names outside of their folder; COCO files are looked at where they are read."""
    path = join(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    if not path.endswith(".txt") or is_address(path):
        return
    prefix = dataset.get("data_prefix") or {}
    if isinstance(prefix, dict):
        prefix = prefix.get("img_path") or prefix.get("root") or ""
    with open(path, encoding="utf-8", errors="replace") as file:
        names = [line.strip().rpartition(" ")[0] or line.strip() for line in file]
    if finding := find_outside(path, join(dataset.get("data_root") or "", prefix), names):
        yield finding


def _old_names(split: str, dataset: dict) -> Iterator[Finding]:
    """Names of metainfo that nothing reads: of the toolboxes' first and second versions."""
    for key in dataset.get("metainfo") or ():
        if key != key.lower() and key.lower() in ("classes", "palette"):
            message = f"metainfo has {key}, which nothing reads: write {key.lower()}"
            yield Finding(f"{split}_dataloader.dataset.metainfo", message, fatal=key.lower() == "classes")


def _odd_names(split: str, dataset: dict) -> Iterator[Finding]:
    """Names of classes that are a text, whose letters would be the classes, and one name of several."""
    key, names = f"{split}_dataloader.dataset.metainfo", (dataset.get("metainfo") or {}).get("classes")
    if isinstance(names, str) and not Path(names).is_file():  # else mmengine reads it
        message = f"classes={names!r} is a text, and each letter would be a class; a single class is ({names!r},)"
        yield Finding(key, message)
    elif isinstance(names, list | tuple):
        twice = repeated(map(str, names))
        if twice:
            message = f"classes has {first_few(map(repr, twice))} more than once; give each class a name of its own"
            yield Finding(key, message)


def _dataset_paths(dataset: dict) -> Iterator[str]:
    root = dataset.get("data_root") or ""
    prefixes = dataset.get("data_prefix") or {}
    for value in prefixes.values() if isinstance(prefixes, dict) else [prefixes]:
        if value is not None:
            yield join(root, value)
    if dataset.get("ann_file"):
        yield join(root, dataset["ann_file"])
