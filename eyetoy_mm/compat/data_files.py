"""Trap: data files that run what is in them when they are opened.

What breaks:

* `mmengine.fileio.load` reads YAML (configs, metafiles) with PyYAML's `Loader`, which calls what a tag such as
  `!!python/object/apply:os.system` names, and reads `.pkl` (`ann_file`, results) with `pickle.load`;
* mmpretrain's CIFAR10 and CIFAR100 and mmseg's `LoadBiomedicalImageFromFile` (`mmseg.utils.io`) unpickle what they
  read, and mmdet's OpenImages reads the tree of its classes with `np.load(..., allow_pickle=True)`;
* a checkpoint holds its config as text, and mmengine runs that text: inferencers that are given weights alone
  (`DetInferencer(weights=...)`), and `Runner.resume` of old checkpoints (`meta["config"]`). The safest way to load
  weights is no help against that.

What we do: YAML is read by the safe loader, which also knows `!!python/tuple`, as `Config.dump` writes it. Pickles are
read by one that makes NumPy arrays, tensors and plain data, and imports nothing else. The text of a config in a
checkpoint is evaluated by `plain_python`, which runs nothing; mmengine writes plain values there. What is refused is a
`DataFileError` that names the file and what it asked for.

Delete this file when the supported OpenMMLab packages do the same.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat import plain_python
from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method

__all__ = ["DataFileError", "PlainUnpickler", "apply", "named_in_refusals", "needed"]


class DataFileError(RuntimeError):
    """A data file that was refused because of what it asks to run."""


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Replaces the readers when they are imported."""
    if not needed():
        return
    after_import("mmengine.fileio.handlers.yaml_handler", _read_yaml_safely)
    after_import("mmengine.fileio.handlers.pickle_handler", _unpickle_safely)
    after_import("mmengine.fileio.io", lambda module: replace_function(module, "load", named_in_refusals))
    for name in ("mmpretrain.datasets.cifar", "mmseg.utils.io"):
        after_import(name, _unpickle_safely)
    after_import("mmdet.datasets.openimages", _load_arrays_safely)
    after_import("mmengine.config", _evaluate_texts)
    after_import("mmengine.infer", lambda module: _texts_are_foreign(module.BaseInferencer, "_init_model"))
    after_import("mmengine.runner", lambda module: _texts_are_foreign(module.Runner, "resume"))


def named_in_refusals(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader whose refusals begin with the file that is its first argument."""

    def read_named(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return read(file, *args, **kwargs)
        except DataFileError as error:
            raise type(error)(f"{file}: {error}") from error

    return read_named


# --- YAML -----------------------------------------------------------------------------------------------------------


def _read_yaml_safely(module: ModuleType) -> None:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        """PyYAML's safe loader, with the tuples that mmengine writes."""

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if _size(node, {}) > plain_python.MAX_SIZE:
                raise DataFileError(
                    f"refused. Its aliases stand for more than {plain_python.MAX_SIZE:,} values, made to fill memory"
                )
            return node

    def tuple_(loader: Any, node: Any) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node, deep=True))

    def refuse(loader: Any, suffix: str, node: Any) -> None:
        raise DataFileError(
            f"refused, line {node.start_mark.line + 1}: the YAML tag !!python/{suffix} makes Python objects, and what "
            "can make them can run what it likes. Write plain values in its place"
        )

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", tuple_)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", refuse)
    module.Loader = Loader  # type: ignore[attr-defined]


def _size(node: Any, sizes: dict[int, int]) -> int:
    """How many values a node of YAML stands for, each counted wherever an alias repeats it."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = plain_python.MAX_SIZE  # of a node that contains itself
        inside = [x for pair in node.value for x in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_size(x, sizes) for x in inside)
    return sizes[id(node)]


# --- Pickles --------------------------------------------------------------------------------------------------------


class PlainUnpickler(pickle.Unpickler):
    """Makes NumPy arrays, tensors and plain data; a pickle that may import what it likes can run what it likes."""

    _PLAIN = (
        OrderedDict,
        defaultdict,
        bool,
        bytearray,
        complex,
        dict,
        float,
        frozenset,
        int,
        list,
        set,
        slice,
        str,
        tuple,
    )

    def find_class(self, module: str, name: str) -> Any:
        """What a file may import, by the names that all versions of NumPy and torch have written."""
        for plain in self._PLAIN:
            if (module, name) in ((plain.__module__, plain.__name__), ("__builtin__", plain.__name__)):
                return plain
        found = self._of_arrays(module, name)
        if found is None:
            raise DataFileError(
                f"refused: asks to import {module}.{name}. It is a pickle, which can run what it likes on your "
                "machine; here it may hold NumPy arrays, tensors, numbers, texts, lists and dicts, no more. If you "
                "know who made it, read it in a program of your own and save it as JSON"
            )
        # A new function each time: a pickle can write attributes of what it imports.
        return found if isinstance(found, type) else lambda *args: found(*args)

    def _of_arrays(self, module: str, name: str) -> Callable[..., Any] | None:
        import numpy as np

        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return np.ndarray(0).__reduce__()[0] if name == "_reconstruct" else np.float32(0).__reduce__()[0]  # type: ignore
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":  # protocol 5
            return np.ndarray(0).__reduce_ex__(5)[0]  # type: ignore[return-value]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch.storage", "_load_from_bytes"): _load_storage,
        }
        if (module, name) == ("torch", "Size"):
            import torch

            return torch.Size
        return known.get((module, name))


def _encode(text: str, encoding: str) -> bytes:
    """What pickle protocol 2 writes for bytes: ``_codecs.encode(text, 'latin1')``."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"asks to encode with {encoding!r}")
    return text.encode("latin1")


def _rebuild_tensor(*args: Any) -> Any:
    import torch

    return torch._utils._rebuild_tensor_v2(*args)


def _load_storage(content: bytes) -> Any:
    """As torch's, which opens this file in the file without ``weights_only``."""
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _load(file: Any, **kwargs: Any) -> Any:
    return PlainUnpickler(file, **kwargs).load()


def _loads(content: bytes, **kwargs: Any) -> Any:
    return _load(io.BytesIO(content), **kwargs)


def _unpickle_safely(module: ModuleType) -> None:
    """Replaces the name ``pickle`` in a module by one that writes as ever, and reads plain data."""
    module.pickle = types.SimpleNamespace(  # type: ignore[attr-defined]
        load=_load, loads=_loads, dump=pickle.dump, dumps=pickle.dumps
    )


def _load_arrays_safely(module: ModuleType) -> None:
    import numpy as np

    class Numpy(ModuleType):
        """NumPy, whose ``load`` reads arrays of objects too, if these are plain."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def load(self, path: Any, allow_pickle: bool = False) -> Any:
            with open(path, "rb") as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(file)
                if not (allow_pickle and dtype.hasobject):
                    return np.load(path, allow_pickle=False)
                try:
                    return _load(file).reshape(shape)
                except DataFileError as error:
                    raise DataFileError(f"{path}: {error}") from error

    module.np = Numpy("numpy")  # type: ignore[attr-defined]


# --- Configs in checkpoints -----------------------------------------------------------------------------------------

_FOREIGN: ContextVar[bool] = ContextVar("foreign", default=False)


def _evaluate_texts(module: ModuleType) -> None:
    cls: Any = module.Config

    def wrapper(original: Function) -> Function:
        def fromstring(cfg_str: str, file_format: str) -> Any:
            if not _FOREIGN.get() or file_format != ".py":
                return original(cfg_str, file_format)
            name = "the config in the checkpoint"
            try:
                return cls(plain_python.evaluate(plain_python.parse(cfg_str, name), name))
            except ValueError as error:
                raise DataFileError(
                    f"{error}. mmengine would run this text, and writes plain values alone: it was not run. Give the "
                    "config as a file beside the weights"
                ) from error

        return fromstring

    replace_method(cls, "fromstring", wrapper)


@contextmanager
def _foreign_texts() -> Iterator[None]:
    token = _FOREIGN.set(True)
    try:
        yield
    finally:
        _FOREIGN.reset(token)


def _texts_are_foreign(cls: Any, name: str) -> None:
    """While this method runs, texts of configs are from a checkpoint."""

    def wrapper(method: Function) -> Function:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _foreign_texts():
                return method(*args, **kwargs)

        return run

    replace_method(cls, name, wrapper)
