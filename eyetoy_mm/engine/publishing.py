"""A trained model as others get it: its weights, in a file named by their hash, and a card that says the rest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader

import eyetoy_mm.backbones  # noqa: F401 - registers them; before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.loading import named_as_in
from eyetoy_mm.compat import safetensors_files
from eyetoy_mm.engine.checkpoint import check_exists, check_state_fits
from eyetoy_mm.engine.painting import check_scope
from eyetoy_mm.engine.preprocessing import test_dataset, test_pipeline
from eyetoy_mm.engine.skeletons import build_on_meta
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import check_folder
from eyetoy_mm.registry import type_name
from eyetoy_mm.state_dicts import State, meta_of, migrated, unwrap, with_versions_of
from eyetoy_mm.tables import markdown_table
from eyetoy_mm.version import __version__

TASKS = {"mmseg": "image-segmentation", "mmdet": "object-detection", "mmpretrain": "image-classification"}


class Published(NamedTuple):
    """What was written."""

    weights: Path
    card: Path


def publish(
    config: Config,
    checkpoint: str,
    folder: Path,
    name: str,
    file_format: str = "safetensors",
    half: bool = False,
    metrics: Mapping[str, str] | None = None,
    licence: str = "not said",
) -> Published:
    """Write the weights of a checkpoint as ``NAME-HASH.FORMAT``, and a card ``NAME-HASH.md``.

    Of a training's checkpoint nothing else is kept than names and colours of the classes: no optimizer, no log, no
    config, which has paths of the machine. Where weights were averaged (EMA), mmengine saves the average as the model.

    Args:
        config: The model's; the weights must be exactly those of its model.
        checkpoint: A file, or what else a loader takes.
        folder: Where to; it is made.
        name: Of the model.
        file_format: One of :data:`eyetoy_mm.zoo.SUFFIXES`, without its dot.
        half: Write numbers of floating point in 16 bits.
        metrics: For the card, as they were measured.
        licence: Of the weights, for the card.

    Raises:
        UserError: The config is of no toolbox or does not say how images are prepared; there is no such checkpoint, it
            does not fit, or its values are too large for 16 bits.
        CheckpointError: It cannot be read safely.
    """
    check_scope(config.get("default_scope"))
    text = _model_text(config)
    check_exists(checkpoint)
    check_folder("--out", folder)
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
    state = _of_the_model(config, unwrap(loaded, checkpoint), checkpoint)
    if half:
        state = with_versions_of(state, _in_16_bits(state, checkpoint))
    saved = meta_of(loaded)
    meta = {"dataset_meta": _plain(saved["dataset_meta"])} if saved.get("dataset_meta") else {}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=folder) as beside:
        written = Path(beside, f"weights.{file_format}")
        _write(written, state, meta)
        digest = hashlib.sha256(written.read_bytes()).hexdigest()
        weights = folder / f"{name}-{digest[:8]}.{file_format}"
        about = {
            "weights": f"`{weights.name}`, {written.stat().st_size / 1e6:.1f} MB, sha256 `{digest}`",
            "parameters": f"{_parameters(state):,}, {_dtypes(state)}",
            "training": _training(saved, "ema_state_dict" in loaded),
            "data": _data(config, meta.get("dataset_meta") or {}),
            "licence": licence,
        }
        card = Path(beside, "card.md")
        card.write_text(_card(config, name, weights.name, about, metrics or {}, text), encoding="utf-8")
        os.replace(card, weights.with_suffix(".md"))
        os.replace(written, weights)
    return Published(weights, weights.with_suffix(".md"))


def _of_the_model(config: Config, state: State, checkpoint: str) -> State:
    """The tensors by the names that the model has now."""
    init_default_scope(config.default_scope)
    model = build_on_meta(config.model)
    state = migrated(named_as_in(model, state, checkpoint), model)
    check_state_fits(model, state, checkpoint)
    return with_versions_of(model.state_dict(), state)


def _in_16_bits(state: State, checkpoint: str) -> State:
    half = {key: x.half() if x.is_floating_point() else x for key, x in state.items()}
    if large := [key for key, x in half.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise UserError(
            f"{checkpoint} has {len(large)} tensors with values above 65504, the largest of float16: "
            f"{first_few(large)}. Publish it without --half"
        )
    return half


def _write(path: Path, state: State, meta: Mapping[str, Any]) -> None:
    if path.suffix == ".safetensors":
        safetensors_files.write(path, state, meta)
        return
    content = io.BytesIO()  # a file has its name inside, and another hash with each
    torch.save({"state_dict": state, "meta": meta}, content)
    path.write_bytes(content.getvalue())


def _plain(value: Any) -> Any:
    """Names and colours as JSON has them; besides plain data a checkpoint can have arrays and tensors alone."""
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


# --- The card ---------------------------------------------------------------------------------------------------------


def _parameters(state: State) -> int:
    """Numbers that were learnt, without the statistics of batch norms."""
    statistics = ("running_mean", "running_var")
    return sum(x.numel() for key, x in state.items() if x.is_floating_point() and not key.endswith(statistics))


def _dtypes(state: State) -> str:
    return " and ".join(sorted({str(x.dtype).removeprefix("torch.") for x in state.values() if x.is_floating_point()}))


def _training(meta: Mapping[str, Any], averaged: bool) -> str:
    found = [f"{meta[key]:,} {text}" for key, text in (("epoch", "epochs"), ("iter", "iterations")) if meta.get(key)]
    found += ["weights averaged (EMA)"] if averaged else []
    return ", ".join(found) or "not said by the checkpoint"


def _data(config: Config, dataset_meta: Mapping[str, Any]) -> str:
    dataset = test_dataset(config)
    classes = dataset_meta.get("classes") or ()
    told = [type_name(dataset)] if dataset is not None else []
    told += [f"{len(classes)} classes: {first_few(map(str, classes), 20)}"] if classes else []
    return ", ".join(told) or "not said by config and checkpoint"


def _card(config: Config, name: str, file: str, about: Mapping[str, str], metrics: Mapping[str, str], text: str) -> str:
    config_file = Path(config.filename).name
    measured = markdown_table(["metric", "value"], [list(row) for row in metrics.items()])
    return f"""---
license: {about["licence"]}
library_name: eyetoy-mm
pipeline_tag: {TASKS[config.default_scope]}
---
# {name}

{markdown_table(["", ""], [list(row) for row in about.items()])}

{measured if metrics else "No metrics were given."}

## How to load

With the config `{config_file}` and `pip install 'eyetoy-mm[lite]' safetensors` (eyetoy-mm {__version__} wrote this):

```
eyetoy infer {config_file} {file} photo.jpg
eyetoy test {config_file} {file}
```

Another training starts from it with `load_from = "{file}"`, or of its backbone
`init_cfg=dict(type="Pretrained", checkpoint="{file}")`.

## The model, and what is done to an image before it

```python
{text}
```
"""


def _model_text(config: Config) -> str:
    """Of the config what makes the model and its inputs; where weights once came from is a path or of no use."""
    parts = dict(model=_without_sources(config.model.to_dict()), test_pipeline=_without_sources(test_pipeline(config)))
    return Config(parts).pretty_text.strip()


def _without_sources(node: Any) -> Any:
    if isinstance(node, Mapping):
        left_out = ("init_cfg", "backend_args", "file_client_args", "pretrained")
        return {key: _without_sources(value) for key, value in node.items() if key not in left_out}
    return [_without_sources(value) for value in node] if isinstance(node, list | tuple) else node
