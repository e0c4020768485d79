"""Trap: loading checkpoints with mmengine on torch >= 2.6.

What breaks, in mmengine 0.10.7:

* `mmengine.runner.checkpoint` calls `torch.load(file)`. Since torch 2.6 that reads tensors and plain data only
  (`weights_only=True`), and mmengine's own checkpoints hold more: `HistoryBuffer` with NumPy arrays (the log, in
  `message_hub`) and, after a best score, NumPy scalars. Resuming and testing fail.
* Worse, they hold *functions*: `HistoryBuffer.__getstate__` stores its statistics methods, and `OneCycleLR` its
  annealing function. In the pickle protocol of `torch.save` these become calls of the builtin `getattr`. To allow that,
  as one often reads, gives the file a way to any attribute of anything, and so to running code.
* http(s) addresses (`load_from`, `init_cfg` with a URL) go through `torch.utils.model_zoo.load_url`, which reads with
  `weights_only=False`: whatever is in the downloaded file is executed. The fork onedl-mmengine does the same with every
  file that the safe way refuses (`_safe_torch_load`).

What we do:

* exactly the classes of `_safe_classes` go on torch's safe list;
* `HistoryBuffer` and `OneCycleParamScheduler` no longer write functions into a checkpoint, and ignore those in a file:
  both have them anyway. Where an existing file calls `getattr` for one of these six functions, mmengine's loaders (and
  nothing else in the process) read None; any other use of it is refused;
* every loader of mmengine takes the name of a model of the zoo for its weights, where there is no file of that name;
* it reads in the safe way, and says in a `CheckpointError` what is wrong with a file and what to
  do.

Not done on torch < 2.6, where `torch.load` itself is unsafe: there is nothing to repair, and much to distrust.

Delete this file when the supported mmengine loads its own checkpoints, from files and addresses, with
`weights_only=True` and without getattr.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import pickle
import re
import urllib.error
import zipfile
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from eyetoy_mm.compat._import_hooks import after_import
from eyetoy_mm.zoo import located

__all__ = ["LAST_READ", "CheckpointError", "apply", "damaged_part", "kind_by_start", "needed", "peek"]

LAST_READ: ContextVar[str] = ContextVar("LAST_READ", default="the checkpoint")
"""The file or address that mmengine's loaders read last: what is made of it is done by functions that are not told."""


class CheckpointError(RuntimeError):
    """A checkpoint file that was refused because of what it asks to import, or that cannot be read."""


_SMALL = 1 << 30  # bytes in memory that do no harm
_ONE_CYCLE = "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"

# Functions that existing checkpoints of mmengine reach by getattr(class, name).
_STORED_FUNCTIONS = {
    "mmengine.logging.history_buffer.HistoryBuffer": ("min", "max", "current", "mean"),
    _ONE_CYCLE: ("_annealing_cos", "_annealing_linear"),
}


def needed() -> bool:
    """Whether mmengine is installed beside a torch that loads weights only by default."""
    if find_spec("mmengine") is None or find_spec("torch") is None:
        return False
    # From the metadata, because `import eyetoy_mm` does not import torch.
    version = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("torch"))
    return version is not None and (int(version[1]), int(version[2])) >= (2, 6)


def apply() -> None:
    """Prepares mmengine's loaders, and the two classes that store functions, in the moment they are imported."""
    if not needed():
        return
    after_import("mmengine.logging.history_buffer", _prepare_history_buffer)
    after_import("mmengine.optim.scheduler.param_scheduler", _prepare_one_cycle)
    after_import("mmengine.runner.checkpoint", _prepare_loaders)


def peek(path: str | os.PathLike[str]) -> Any:
    """What a local file contains, as safely as everything else is loaded; the tensors are read when they are used."""
    import torch

    mapped = zipfile.is_zipfile(path)  # what PyTorch wrote before 1.6 is read at once
    with torch.serialization.safe_globals(_WHILE_READING):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


# --- What checkpoints may contain -----------------------------------------------------------------------------------


def _safe_classes(history_buffer: type) -> list[Any]:
    """What mmengine's checkpoints contain besides tensors and plain data, as `add_safe_globals` takes it."""
    import numpy as np

    try:
        from numpy._core import multiarray
    except ImportError:  # NumPy 1
        from numpy.core import multiarray  # type: ignore[no-redef]

    safe: list[Any] = [history_buffer, np.ndarray, np.dtype]
    # A file names them as the NumPy that wrote it does: 1.x numpy.core, 2.x numpy._core.
    for package in ("numpy.core", "numpy._core"):
        safe.append((multiarray._reconstruct, f"{package}.multiarray._reconstruct"))
        safe.append((multiarray.scalar, f"{package}.multiarray.scalar"))
    # Of which type the numbers are. Log values: Python floats, ints and bools made to arrays (ints are int32 when
    # written on Windows with NumPy 1). Best scores: also float32. Palettes in dataset_meta: uint8.
    for dtype in (np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_):
        safe.append(type(np.dtype(dtype)))
    return safe


def _refuse(name: str) -> NoReturn:
    # In torch's words, so that `_refused_names` finds the name.
    raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {name} was not an allowed global by default.")


class _OneCycleName:
    """Takes the place of OneCycleParamScheduler in a file, which names the class only to take a function from it."""

    def __new__(cls, *args: object, **kwargs: object) -> _OneCycleName:
        _refuse(_ONE_CYCLE)


def _read_stored_function(owner: object, name: str) -> None:
    """Reads `getattr(owner, name)` in a checkpoint: None for the functions that mmengine stores, else a refusal."""
    path = ""
    if owner is _OneCycleName:
        path = _ONE_CYCLE
    elif isinstance(owner, type):
        path = f"{owner.__module__}.{owner.__qualname__}"
    if name not in _STORED_FUNCTIONS.get(path, ()):
        _refuse("builtins.getattr")


# Known while one of mmengine's loaders reads a file, and only then.
_WHILE_READING: list[Any] = [
    (_read_stored_function, "builtins.getattr"),
    (_OneCycleName, _ONE_CYCLE),
]


def _prepare_history_buffer(module: ModuleType) -> None:
    import torch

    cls: Any = module.HistoryBuffer
    torch.serialization.add_safe_globals(_safe_classes(cls))

    def __getstate__(self: Any) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "statistics_methods"}

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        self._set_default_statistics()
        self.__dict__.update((key, value) for key, value in state.items() if key != "statistics_methods")

    cls.__getstate__, cls.__setstate__ = __getstate__, __setstate__


def _prepare_one_cycle(module: ModuleType) -> None:
    cls: Any = module.OneCycleParamScheduler

    def state_dict(self: Any) -> dict[str, Any]:
        return {key: value for key, value in super(cls, self).state_dict().items() if key != "anneal_func"}

    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        super(cls, self).load_state_dict({key: value for key, value in state.items() if key != "anneal_func"})

    cls.state_dict, cls.load_state_dict = state_dict, load_state_dict


# --- How they are read ----------------------------------------------------------------------------------------------


def _prepare_loaders(module: ModuleType) -> None:
    import torch

    loader: Any = module.CheckpointLoader
    if isinstance(loader.__dict__["load_checkpoint"], _SafeLoad):
        return
    loader.load_checkpoint = _SafeLoad(loader.__dict__["load_checkpoint"])
    module.load_url = functools.partial(module.load_url, weights_only=True)  # type: ignore[attr-defined]
    if hasattr(module, "_safe_torch_load"):  # onedl-mmengine

        def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
            return torch.load(file, map_location=map_location, weights_only=True)

        module._safe_torch_load = load  # type: ignore[attr-defined]


class _SafeLoad:
    """`CheckpointLoader.load_checkpoint`, through which every loader of mmengine goes, with our errors.

    A descriptor, so that it is bound as the class method that it replaces.
    """

    def __init__(self, original: classmethod) -> None:
        self.original = original

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        load = self.original.__get__(instance, owner)

        @functools.wraps(load)
        def load_checkpoint(filename: Any, *args: Any, **kwargs: Any) -> Any:
            import torch

            filename = located(filename) if isinstance(filename, str) else filename
            LAST_READ.set(str(filename))
            _refuse_inflated(filename)
            _refuse_damaged(filename)
            with torch.serialization.safe_globals(_WHILE_READING):
                try:
                    return load(filename, *args, **kwargs)
                except Exception as error:
                    message = _explain(filename, error)
                    if message is None:
                        raise
                    raise CheckpointError(message) from error

        return load_checkpoint


def _refuse_inflated(filename: object) -> None:
    """Refuses a local file that is small and fills the memory: torch writes its zip files uncompressed."""
    path = _local(filename)
    if not path:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # no zip file, or a damaged one: its loader says so
        return
    size = os.path.getsize(path)
    if unpacked > max(10 * size, _SMALL):
        raise CheckpointError(
            f"{filename}: refused. Its {size:,} bytes are compressed, and stand for {unpacked:,}, as torch.save never "
            "writes them: it is made to fill the memory. If it is yours, unpack it and save it again with torch.save"
        )


def damaged_part(path: str | os.PathLike[str]) -> str | None:
    """The part of a zip file whose bytes are not those of its checksum; None where all are, or where it has none."""
    known = os.stat(path)
    return _damaged_part(os.path.realpath(path), known.st_ino, known.st_size, known.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _damaged_part(path: str, *version: int) -> str | None:
    """The same of one version of a file, which is read as a whole once: whoever chooses it, and whoever loads it."""
    with zipfile.ZipFile(path) as archive:
        has_checksums = any(entry.CRC for entry in archive.infolist())  # torch.serialization.set_crc32_options
        return archive.testzip() if has_checksums else None


def _refuse_damaged(filename: object) -> None:
    """Refuses a local file of which some bytes are others than those saved: torch reads them as they are.

    A disk that fails does that, or a download of which pieces are missing though it has its full length.
    """
    path = _local(filename)
    if not path or not zipfile.is_zipfile(path):
        return
    try:
        wrong = damaged_part(path)
    except Exception:  # no whole zip file: its loader says so
        return
    if wrong is not None:
        raise CheckpointError(
            f"{filename} is damaged: the bytes of its part {wrong} are not those that were saved. Copy or download it "
            "again"
        )


def _explain(filename: object, error: Exception) -> str | None:
    """What is wrong with the file; None where the error is not about what is in it."""
    if isinstance(error, urllib.error.URLError):
        reason = error if isinstance(error, urllib.error.HTTPError) else error.reason
        return f"{filename} cannot be downloaded: {reason}. Download it where you can, and give the path of the file"
    if not _raised_while_unpickling(error.__traceback__):
        return _not_reached(filename, error)
    text = str(error)
    refused = _refused_names(filename, text)
    if refused:
        return (
            f"{filename}: refused. Besides tensors and plain data, this checkpoint asks to import "
            f"{', '.join(refused)}, and checkpoints of OpenMMLab contain no such thing. A file that can import what "
            "it likes can run what it likes on your machine, so it was not loaded. If the file is yours, save it again "
            "with tensors, numbers, strings, lists and dicts only, for example torch.save({'state_dict': "
            "model.state_dict()}, path). If it is not, and you know what these names are and trust who made it, allow "
            "them before you load it: torch.serialization.add_safe_globals([...]) with the imported classes."
        )
    if isinstance(error, (OSError, MemoryError, ImportError)):
        return None
    # Subclasses of RuntimeError are about memory and devices, and so are some of its own: torch's message says it.
    about_devices = r"deserialize object on|restore data location|map_location|CUDA|device"
    if isinstance(error, RuntimeError) and (type(error) is not RuntimeError or re.search(about_devices, text)):
        return None
    # Of torch's text only the first sentence: the next ones recommend weights_only=False.
    reason = text.split("WeightsUnpickler error: ")[-1].strip().split("\n")[0].split(". ")[0] or type(error).__name__
    return (
        f"{filename}: not a readable checkpoint{_first_bytes(filename)}. It may be damaged, cut short while it was "
        f"copied or downloaded, or of another kind; get it again, or save it again with torch.save. "
        f"(While reading: {reason})"
        if (kind := _other_kind(filename, text)) is None
        else f"{filename} is {kind}"
    )


def _not_reached(filename: object, error: Exception) -> str | None:
    """What is wrong with an address; None for a path, of which mmengine's own message says it."""
    scheme, is_address, name = str(filename).partition("://")
    if not is_address:
        return None
    if isinstance(error, KeyError):
        return f"{filename}: {scheme} has no weights of the name {name!r}. Give the path or the address of a file"
    if isinstance(error, ImportError):
        return f"{filename} needs a package that is not installed ({error}). Give the path of the file, downloaded"
    if isinstance(error, FileNotFoundError):
        told = "give the path without file://" if scheme == "file" else f"nothing reads addresses with {scheme}://"
        return f"{filename} is not there: {told}"
    return None


def _other_kind(filename: object, text: str) -> str | None:
    """What else a file is, and how to make a checkpoint of it; None where that is not known."""
    if "TorchScript" in text:
        weights = f"torch.jit.load({str(filename)!r}).state_dict()"
        return f"a TorchScript archive; save its weights: torch.save({{'state_dict': {weights}}}, 'weights.pth')"
    return kind_by_start(filename)


_STARTS = {
    b"\x89HDF": "an HDF5 file, as of Keras; PyTorch does not read it",
    b"version https://git-lfs": "a pointer of Git LFS in the place of the file: fetch that with git lfs pull",
    b"<!doctype html": "a web page and no checkpoint: its address is of a page, take that of the download",
    b"<html": "a web page and no checkpoint: its address is of a page, take that of the download",
    b"<?xml": "XML and no checkpoint, such as a server's message: see what its address gives in a browser",
    b"{": "JSON and no checkpoint: a server's message, or the index of weights in several files, which are beside it",
    b"/annex/objects": "a pointer of git-annex in the place of the file: fetch that with git annex get",
    b"\x1f\x8b": "packed by gzip: unpack it first",
    b"BZh": "packed by bzip2: unpack it first",
    b"7z\xbc\xaf": "packed by 7-Zip: unpack it first",
    b"Rar!": "packed by RAR: unpack it first",
    b"GGUF": "a GGUF file, as of llama.cpp; PyTorch does not read it",
}


def kind_by_start(filename: object) -> str | None:
    """What a file is that is no checkpoint, by its first bytes, and what to do; None where that is not known."""
    start = _start(filename).removeprefix(b"\xef\xbb\xbf").lstrip().lower()  # a byte order mark
    return next((kind for first, kind in _STARTS.items() if start.startswith(first.lower())), None)


def _raised_while_unpickling(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "torch.serialization":
            return True
        traceback = traceback.tb_next
    return False


def _refused_names(filename: object, text: str) -> list[str]:
    """Names that a file asked for and did not get, from torch's message and, for a local file, from the file."""
    match = re.search(
        r"Unsupported global: GLOBAL (\S+) was not an allowed|unsupported GLOBAL (\S+) whose module|"
        r"reduce for unrecognized function (.+)|via `add_safe_globals`,? but got (.+)",
        text,
    )
    if match is None:
        return []
    names = {next(name for name in match.groups() if name)}
    if path := _local(filename):
        import torch

        try:
            # Reads the names without importing them.
            names |= {n.removeprefix("builtins.") for n in torch.serialization.get_unsafe_globals_in_checkpoint(path)}
        except Exception:  # not in the zip format, or made so as to fail here: the first name is enough to refuse it
            pass
    return sorted(name.removeprefix("builtins.") for name in names)


def _first_bytes(filename: object) -> str:
    path = _local(filename)
    return f" ({os.path.getsize(path)} bytes, starting with {_start(path)!r})" if path else ""


def _start(filename: object) -> bytes:
    path = _local(filename)
    if not path:
        return b""
    with open(path, "rb") as file:
        return file.read(32)


def _local(filename: object) -> str:
    """Path of a file that is on a disk, else ""."""
    path = os.path.expanduser(filename) if isinstance(filename, (str, os.PathLike)) else ""
    return str(path) if os.path.isfile(path) else ""
