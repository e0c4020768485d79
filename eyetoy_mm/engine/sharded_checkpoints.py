"""Checkpoints as directories, to which each process writes its part (``torch.distributed.checkpoint``).

Such a directory has the shards (``*.distcp``), what says where each is (``.metadata``), the sizes of these files, and
``rest.pth``: the checkpoint as mmengine makes it, without the tensors that are in shards, and with their places. Read
in a process of its own it is an ordinary checkpoint; in a run of any number of processes each reads what it needs.
"""

from __future__ import annotations

import json
import pickle
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shards

from eyetoy_mm.compat.checkpoint_loading import CheckpointError, peek
from eyetoy_mm.compat.whole_checkpoints import REST, SIZES
from eyetoy_mm.state_dicts import gathered
from eyetoy_mm.whole_files import beside, renamed_over, replacing, write_whole

_PLACES = "sharded"  # key of the rest: names in .metadata, and the keys that lead to each tensor in the checkpoint

# --- What goes where --------------------------------------------------------------------------------------------------


def in_one_piece(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with its shards gathered, in which all processes take part; in the memory of process 0 alone."""
    keep = dist.get_rank() == 0

    def change(x: Tensor) -> Tensor | None:
        whole = gathered(x)
        return whole.cpu() if keep else None

    return _changed(checkpoint, change)


def _changed(node: dict[Any, Any], change: Callable[[Tensor], Any]) -> Any:
    """A copy of nested dicts, of the same types and attributes (``_metadata``), with other tensors; None leaves out."""
    copied = type(node)()
    if metadata := getattr(node, "_metadata", None):
        copied._metadata = metadata  # type: ignore[attr-defined]
    for key, value in node.items():
        if isinstance(value, Tensor):
            value = change(value)
            if value is None:
                continue
        elif isinstance(value, dict):
            value = _changed(value, change)
        copied[key] = value
    return copied


def _shards_in(node: dict[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    for key, value in node.items():
        if isinstance(value, DTensor):
            yield (*above, key), value
        elif isinstance(value, dict):
            yield from _shards_in(value, (*above, key))


def _without_shards(x: Tensor) -> Tensor | None:
    return None if isinstance(x, DTensor) else x.cpu()


def _put_back(shards: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    for name, keys in rest.pop(_PLACES).items():
        node: Any = rest
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = shards[name]
    return rest


def _name(keys: tuple[Any, ...]) -> str:
    return "/".join(map(str, keys))


# --- Writing ----------------------------------------------------------------------------------------------------------


class Saving:
    """A checkpoint on its way into a directory, which gets its name when it is complete; by all processes.

    Args:
        path: Of the directory.
        checkpoint: With the tensors that are sharded as such.
        background: Processes with a back end for CPU tensors, to write while training goes on; None to write now.

    Raises:
        OSError: It cannot be written; in all processes.
    """

    def __init__(
        self, path: str | Path, checkpoint: dict[str, Any], background: dist.ProcessGroup | None = None
    ) -> None:
        self.path = Path(path)
        self.iteration: int = checkpoint["meta"]["iter"]
        self._actions: list[Callable[[], None]] = []
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._error: BaseException | None = None
        named: list[Any] = [beside(self.path)]
        dist.broadcast_object_list(named)
        self._temporary: Path = named[0]
        by_main_process(lambda: self._begin(checkpoint))
        shards = {_name(keys): x for keys, x in _shards_in(checkpoint)}
        if background is None:
            future: Future[Any] = Future()
            try:
                future.set_result(dcp.save(shards, checkpoint_id=self._temporary))
            except CheckpointException as error:
                future.set_exception(error)
            self._end(future)
            self.wait()
        else:
            saved = dcp.async_save(shards, checkpoint_id=self._temporary, process_group=background)
            assert isinstance(saved, Future)  # what another kind of checkpointer gives
            saved.add_done_callback(self._end)

    @property
    def ended(self) -> bool:
        """Whether it is complete, or has failed."""
        return self._ended.is_set()

    def ended_within(self, seconds: float) -> bool:
        """Wait for the end, so long at most; for it the other processes need not wait as well."""
        return self._ended.wait(seconds)

    def then(self, action: Callable[[], None]) -> None:
        """Do something as soon as it is complete, in process 0, and nothing where it failed."""
        with self._lock:
            if not self.ended:
                self._actions.append(action)
                return
        if self._error is None:
            action()

    def wait(self) -> None:
        """Wait for the end.

        Raises:
            OSError: It could not be written.
        """
        self._ended.wait()
        errors: list[Any] = [self._error]
        dist.broadcast_object_list(errors)  # of process 0, which alone gives the directory its name
        if errors[0] is not None:
            raise errors[0]

    def rewrite_rest(self, checkpoint: dict[str, Any]) -> None:
        """Write what is not in shards again, for a checkpoint of the same iteration."""
        by_main_process(lambda: _write_rest(self.path, checkpoint))

    def _begin(self, checkpoint: dict[str, Any]) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        _write_rest(self._temporary, checkpoint)

    def _end(self, saved: Future[Any]) -> None:
        """Runs in the thread that has written, which tells nobody of its errors."""
        with self._lock:
            try:
                if (problem := saved.exception()) is not None:
                    raise _as_os_error(problem, self.path)
                if dist.get_rank() == 0:
                    renamed_over(_measured(self._temporary), self.path)
                    for action in self._actions:
                        action()
            except Exception as error:
                self._error = error
                if dist.get_rank() == 0:
                    shutil.rmtree(self._temporary, ignore_errors=True)
            self._ended.set()


def _write_rest(folder: Path, checkpoint: dict[str, Any]) -> None:
    rest = _changed(checkpoint, _without_shards)
    rest[_PLACES] = {_name(keys): list(keys) for keys, _ in _shards_in(checkpoint)}
    with replacing(folder / REST) as file:
        torch.save(rest, file)


def _measured(folder: Path) -> Path:
    """Note the sizes of the files, by which a copy that was cut short is known."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != REST}
    write_whole(folder / SIZES, json.dumps(sizes))
    return folder


def _as_os_error(problem: BaseException, path: Path) -> Exception:
    """What the processes met when they wrote."""
    failures = problem.failures.values() if isinstance(problem, CheckpointException) else [(problem, None)]
    causes = [error for error, _ in failures]
    found = next((error for error in causes if isinstance(error, OSError)), None)
    if found is not None:
        return OSError(found.errno, found.strerror, str(path))
    return RuntimeError(f"{path} cannot be written: {'; '.join(dict.fromkeys(map(str, causes)))}")


def by_main_process(action: Callable[[], None]) -> None:
    """Do something in process 0, and fail in all of them where it cannot be written.

    Raises:
        OSError: Of process 0.
    """
    errors: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except OSError as error:
            errors = [error]
    dist.broadcast_object_list(errors)
    if errors[0] is not None:
        raise errors[0]


# --- Reading ----------------------------------------------------------------------------------------------------------

_MESH: ContextVar[DeviceMesh | None] = ContextVar("_MESH", default=None)


@contextmanager
def read_in_shards(mesh: DeviceMesh) -> Iterator[None]:
    """Have directories read into shards, each process its own, and of other files what is used."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_disk(filename: str, map_location: Any = None) -> Any:
    """Load a local file, as mmengine does, or a directory."""
    path = Path(filename).expanduser()
    if path.is_dir():
        return read_directory(path)
    if _MESH.get() is not None and path.is_file():
        return peek(path)
    return load_from_local(filename, map_location)


def is_directory_of_shards(path: str | Path) -> bool:
    """Whether a path is such a directory."""
    return (Path(path) / REST).is_file()


def read_directory(path: str | Path) -> dict[str, Any]:
    """The checkpoint of a directory.

    Returns:
        It, whole, or within :func:`read_in_shards` its tensors in shards.

    Raises:
        CheckpointError: It is not complete, or not a checkpoint.
    """
    folder = Path(path)
    missing = [name for name in (REST, ".metadata") if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is a directory, and no complete checkpoint: {', '.join(missing)} is missing")
    rest, reader = peek(folder / REST), _Reader(folder)
    known = reader.read_metadata().state_dict_metadata
    names = rest[_PLACES]
    if unknown := [name for name in names if not hasattr(known.get(name), "size")]:
        raise CheckpointError(f"{folder} is damaged: .metadata does not know {unknown[0]}")
    shards = {name: _empty(known[name].size, known[name].properties.dtype) for name in names}  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is read by each process for itself
        try:
            dcp.load(shards, storage_reader=reader, no_dist=True)
        except CheckpointException as error:
            reasons = [str(each) for each, _ in error.failures.values()]
            raise CheckpointError(f"{folder} cannot be read: {reasons[0]}") from error
    return _put_back(shards, rest)


def _empty(size: torch.Size, dtype: torch.dtype) -> Tensor:
    mesh = _MESH.get()
    if mesh is None:
        return torch.empty(size, dtype=dtype)
    return empty_shards(*size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


class _Reader(dcp.FileSystemReader):
    """Reads ``.metadata``, a pickle, without running what is in it: files of others are read, too."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / ".metadata"
        with open(path, "rb") as file:
            try:
                return _PlainUnpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
                raise CheckpointError(f"{path} is damaged, or not of a checkpoint: {error}") from error


_OF_METADATA = {
    *("Metadata", "TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "MetadataIndex", "StorageMeta"),
    "_MEM_FORMAT_ENCODING",
}
_DESCRIBES_TENSORS = {
    *(("torch.distributed.checkpoint.metadata", name) for name in _OF_METADATA),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *(("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
}


class _PlainUnpickler(pickle.Unpickler):
    """Makes what describes tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _DESCRIBES_TENSORS:
            raise pickle.UnpicklingError(f"it asks to import {module}.{name}, which no checkpoint needs")
        return super().find_class(module, name)
