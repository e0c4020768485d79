"""Trap: mmengine reads no safetensors files.

What breaks, in mmengine 0.10.7: `CheckpointLoader` hands each file to `torch.load`, which reads pickles alone. timm and
Hugging Face publish weights as safetensors, which are tensors and texts, and cannot run anything.

What we do: a file of this format, on a disk or behind an http(s) address, is read as the checkpoint of mmengine that it
stands for, a dict with `state_dict` and `meta`. What else than tensors `write` keeps (classes, colours, the versions of
modules) is JSON in the header of the file, under one key.

Delete this file when mmengine reads safetensors; `write` moves to who publishes.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function
from eyetoy_mm.compat.checkpoint_loading import CheckpointError, kind_by_start

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["apply", "is_safetensors", "needed", "read", "write"]

SUFFIX = ".safetensors"
_KEY = "eyetoy_mm"  # of the header: one, for the library writes several in an order that is another each time
_NOT_INSTALLED = "needs safetensors, which is not installed: pip install safetensors"


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Teaches mmengine's loaders the format, in the moment they are imported."""
    if needed():
        after_import("mmengine.runner.checkpoint", _teach_loaders)


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of this format, by its name or its first bytes: the length of a header, and that, in JSON."""
    path = Path(path).expanduser()
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(9)
    has_header = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8
    return has_header or path.suffix == SUFFIX


def read(path: str | os.PathLike[str], map_location: Any = None) -> dict[str, Any]:
    """The checkpoint that a file stands for: `state_dict`, with the versions of modules as far as known, and `meta`.

    Args:
        path: A file on a disk.
        map_location: The device, as `torch.load` takes it; None for the CPU.

    Raises:
        CheckpointError: The file cannot be read; or the package is not installed.
    """
    if find_spec("safetensors") is None:
        raise CheckpointError(f"{path} {_NOT_INSTALLED}")
    from safetensors import SafetensorError, safe_open

    state: OrderedDict[str, Tensor] = OrderedDict()
    try:
        with safe_open(Path(path).expanduser(), framework="pt", device=str(map_location or "cpu")) as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                state[name] = file.get_tensor(name)
            kept = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        meta, versions = kept.get("meta", {}), kept.get("versions", {})
        modules = OrderedDict((name, {"version": version}) for name, version in versions.items())
    except (SafetensorError, ValueError, AttributeError) as error:  # AttributeError: JSON that is no dict
        if kind := _other_kind(path):
            raise CheckpointError(f"{path} is {kind}") from error
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({os.path.getsize(Path(path).expanduser())} bytes). It may be "
            f"damaged, or cut short while it was copied or downloaded; get it again. (While reading: {error})"
        ) from error
    state._metadata = modules  # type: ignore[attr-defined]
    return {"state_dict": state, "meta": meta}


def _other_kind(path: str | os.PathLike[str]) -> str | None:
    with open(Path(path).expanduser(), "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return "no safetensors file but one of torch.save: call it .pth"
    return kind_by_start(str(path))


def write(path: str | os.PathLike[str], state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write what :func:`read` gives back; the same tensors and texts are the same bytes.

    Args:
        path: The file.
        state: Named tensors. Those that share memory are written apart.
        meta: What JSON can hold.

    Raises:
        CheckpointError: The package is not installed.
    """
    if find_spec("safetensors") is None:
        raise CheckpointError(f"{path} {_NOT_INSTALLED}")
    from safetensors.torch import save

    modules = getattr(state, "_metadata", None) or {}
    versions = {name: entry["version"] for name, entry in modules.items() if entry.get("version") is not None}
    text = json.dumps({"meta": meta, "versions": versions}, sort_keys=True)
    tensors = {name: x.detach().cpu().clone().contiguous() for name, x in state.items()}
    Path(path).write_bytes(save(tensors, {_KEY: text}))  # save_file lets nobody else read the file


def _teach_loaders(module: ModuleType) -> None:
    def local(original: Function) -> Function:
        def load_from_local(filename: Any, map_location: Any) -> Any:
            return read(filename, map_location) if is_safetensors(filename) else original(filename, map_location)

        return load_from_local

    def downloaded(original: Function) -> Function:
        def load_url(url: str, model_dir: str | None = None, map_location: Any = None, **kwargs: Any) -> Any:
            if not urlparse(url).path.endswith(SUFFIX):
                return original(url, model_dir=model_dir, map_location=map_location, **kwargs)
            return read(_download(url, model_dir, kwargs.get("progress", True)), map_location)

        return load_url

    mmengines = module.load_from_local
    replace_function(module, "load_from_local", local)
    if module.load_from_local is not mmengines:  # the first time; later ones would put it before the loader of shards
        module.CheckpointLoader.register_scheme(prefixes="", loader=module.load_from_local, force=True)
    replace_function(module, "load_url", downloaded)


def _download(url: str, model_dir: str | None, progress: bool) -> Path:
    """A file in the cache of downloads, as torch keeps them; a hash in its name, as ``eyetoy publish`` gives it, holds.

    Raises:
        CheckpointError: What was downloaded has another hash.
    """
    import torch

    folder = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"))
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,64})\.", path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), digest[1] if digest else None, progress)
        except RuntimeError as error:
            raise CheckpointError(f"{url}: {error}. Download it again") from error
    return path
