"""The models that come with the package, by name: their configs, what they are for, and their weights.

A name is that of a config, ``mask-rcnn_eyetoy-t_fpn_ms-crop-3x_coco``. Its weights are the file of that name in the
folder ``weights``, which comes with the package and has a card beside each, ``NAME.md``; or at the address that the
metafile gives. Files of that name in the folder that ``$EYETOY_WEIGHTS`` names go first: a laboratory has its own.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "PREFIX",
    "SUFFIXES",
    "TOOLBOXES",
    "VARIABLE",
    "Model",
    "advice",
    "card_of",
    "config_of",
    "located",
    "models",
    "names",
    "weights_of",
    "weights_of_config",
]

_PACKAGE = Path(__file__).resolve().parent

PREFIX = "eyetoy_mm::"
"""What may stand before a name, and before the path of a config below ``configs``."""
VARIABLE = "EYETOY_WEIGHTS"
"""The environment variable with the folder whose weights go before those of the package."""
SUFFIXES = (".safetensors", ".pth")
"""Of the files with weights, in the order in which they are looked for."""

# For which toolbox a model is. A metafile does not say it; the field's tasks do.
TOOLBOXES = {
    "Image Classification": "mmpretrain",
    "Object Detection": "mmdet",
    "Instance Segmentation": "mmdet",
    "Panoptic Segmentation": "mmdet",
    "Semantic Segmentation": "mmseg",
}


class ZooError(RuntimeError):
    """The folder that the environment names is none."""


@dataclass(frozen=True)
class Model:
    """A model of the zoo.

    Attributes:
        name: Its name.
        config: Its config file.
        toolbox: The package that trains it: mmdet, mmseg or mmpretrain.
        tasks: The field's names of what it is for.
        data: What it is trained on, as its metafile has it.
        parameters: How many it has, None where the metafile does not say it.
        results: Figures by data set and metric, ``{"COCO": {"box AP": 51.0}}``; empty where none are known.
        weights: File or address of its weights, None where there are none.
    """

    name: str
    config: Path
    toolbox: str
    tasks: tuple[str, ...]
    data: str
    parameters: int | None
    results: Mapping[str, Mapping[str, float]]
    weights: str | None


def models() -> tuple[Model, ...]:
    """Every model of the metafiles, sorted by name."""
    return tuple(sorted(map(_model, entries()), key=lambda model: model.name))


@cache
def entries() -> tuple[dict[str, Any], ...]:
    """The models as the metafiles have them, ``Config`` from :func:`root`; what is given is not to be changed."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    metafiles = yaml.load((root() / "model-index.yml").read_text(encoding="utf-8"), loader)["Import"]
    texts = ((root() / metafile).read_text(encoding="utf-8") for metafile in metafiles)
    return tuple(entry for text in texts for entry in yaml.load(text, loader)["Models"])


def root() -> Path:
    """The folder with ``configs`` and ``model-index.yml``: installed it is `.mim`, in a bare checkout the root."""
    installed = _PACKAGE / ".mim"
    return installed if (installed / "model-index.yml").is_file() else _PACKAGE.parent


def config_of(name: str) -> Path | None:
    """The config file of a model, parts of configs excluded; None where there is no such model.

    Args:
        name: Of the model, with or without ``.py``. After ``eyetoy_mm::`` its folders may stand before it, too.
    """
    below = name.removeprefix(PREFIX)
    if below == name and not _is_name(name):
        return None
    parts = PurePosixPath(f"{below.removesuffix('.py')}.py").parts
    found = _configs().get(parts[-1].removesuffix(".py"))
    return found if found is not None and found.parts[-len(parts) :] == parts else None


def advice(name: str, with_weights: bool = False) -> str:
    """The names that are near to one that is none, as the end of a message; nothing where none is near.

    Args:
        name: What was given.
        with_weights: Only models with weights are meant, and only by a name as near as one that is misspelt.
    """
    stem = Path(name.removeprefix(PREFIX)).name.removesuffix(".py")
    if with_weights:
        near = [model for model in difflib.get_close_matches(stem, names(), 3, 0.9) if weights_of(model)]
    else:
        near = difflib.get_close_matches(stem, names(), 3, 0.7)
        near = near or [model for model in names() if stem and model.startswith(stem)]
    more = f" and {len(near) - 3} more" if len(near) > 3 else ""
    return f", but models of the package are called {', '.join(near[:3])}{more}" if near else ""


def names() -> list[str]:
    """Of all models that have a config, those of the samples too."""
    return sorted(_configs())


def weights_of(name: str) -> str | None:
    """File or address of a model's weights; None where there are none, or no such model."""
    if not _is_name(name):
        return None
    files = (folder / f"{name}{suffix}" for folder in _folders() for suffix in SUFFIXES)
    found = next((str(path) for path in files if path.is_file()), None)
    if found is None and config_of(name) is not None:
        return next((_address(entry) for entry in entries() if entry["Name"] == name), None)
    return found


def weights_of_config(path: str | Path) -> str | None:
    """File or address of the weights that belong to a config file; None where it is not one of the package."""
    config = config_of(Path(path).stem)
    return weights_of(config.stem) if config is not None and config.samefile(path) else None


def located(checkpoint: str) -> str:
    """The file or address of a checkpoint: as it is given, or of the model that it names where there is no such file.

    Args:
        checkpoint: A path, an address, or the name of a model, with or without ``eyetoy_mm::`` before it.
    """
    _, named, name = checkpoint.rpartition(PREFIX)
    if not named and (_is_address(checkpoint) or Path(checkpoint).exists()):
        return checkpoint
    return weights_of(Path(name).name.removesuffix(".py") if named else checkpoint) or checkpoint


def card_of(weights: str) -> Path | None:
    """The card beside a file of weights, if there is one."""
    card = Path(weights).with_suffix(".md")
    return card if not _is_address(weights) and card.is_file() else None


@cache
def _configs() -> dict[str, Path]:
    """Every config of a model, by its name; what is given is not to be changed."""
    files = (root() / "configs").resolve().rglob("*.py")
    return {path.stem: path for path in files if "_base_" not in path.parts}


def _is_address(text: str) -> bool:
    return "://" in text


def _is_name(text: str) -> bool:
    return bool(text) and Path(text).name == text


def _folders() -> list[Path]:
    """Where weights are, those that go first first."""
    own = os.environ.get(VARIABLE)
    if own and not Path(own).is_dir():
        raise ZooError(f"${VARIABLE} should name a folder with weights, and {own} is none")
    shipped = [folder / "weights" for folder in (root(), _PACKAGE.parent) if (folder / "weights").is_dir()]
    return [folder.resolve() for folder in ([Path(own)] if own else []) + shipped[:1]]


def _model(entry: Mapping[str, Any]) -> Model:
    tasks = tuple(dict.fromkeys(result["Task"] for result in entry["Results"]))
    metadata = entry["Metadata"]
    return Model(
        name=entry["Name"],
        config=root() / entry["Config"],
        toolbox=TOOLBOXES[tasks[0]],
        tasks=tasks,
        data=str(metadata["Training Data"]),
        parameters=metadata.get("Parameters"),
        results=_results(entry["Results"]),
        weights=weights_of(entry["Name"]),
    )


def _results(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        if entry.get("Metrics"):  # a data set may have several tasks
            found.setdefault(entry["Dataset"], {}).update(entry["Metrics"])
    return found


def _address(entry: Mapping[str, Any]) -> str | None:
    """The address of an entry; a path is that of a file of the package, which has been looked for."""
    weights = entry.get("Weights")
    return weights if weights and _is_address(weights) else None
