"""Runs the kernels of the ``triton`` back end on a CPU, in Triton's interpreter, for tests and dry runs.

It mends what stands in the way in Triton 3.6: functions of ``triton.language`` that are written in Triton are compiled
ones unless the whole program was started with ``TRITON_INTERPRET=1``; numpy >= 2.4 makes no int of an array, which
``range`` asks for; and products of bfloat16 are taken of the raw bits.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import operator
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from eyetoy_mm.ops import backend_triton


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Within it, back end ``triton`` takes tensors on a CPU."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter, jit

    patch_language, patch_tensor = interpreter._patch_lang, interpreter._patch_lang_tensor
    dot = interpreter.InterpreterBuilder.create_dot

    def patch_all(function: Any) -> contextlib.ExitStack:
        """Once for a launch: for the kernel, and for the functions of ``triton.language`` in the module of these."""
        scopes = contextlib.ExitStack()
        for each in (function, tl.zeros.fn):
            scopes.callback(patch_language(each).restore)
        scopes.restore = scopes.close  # type: ignore[attr-defined]
        return scopes

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return rewritten(self.fn)(*arguments, **named)

    rewritten = functools.cache(lambda function: interpreter.InterpretedFunction(function).rewrite())

    def with_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: operator.index(self.handle.data.item()))

    def as_float(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot_of_floats(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return dot(self, as_float(a), as_float(b), *others)

    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.object(jit.JITFunction, "__call__", call),
            mock.patch.object(interpreter.InterpretedFunction, "__call__", call),
            mock.patch.object(interpreter, "_patch_lang", patch_all),
            mock.patch.object(interpreter, "_patch_lang_tensor", with_index),
            mock.patch.object(interpreter.InterpreterBuilder, "create_dot", dot_of_floats),
            mock.patch.object(backend_triton, "INTERPRETED", True),
            mock.patch.object(backend_triton, "kernels", _kernels),
            np.errstate(invalid="ignore", over="ignore", divide="ignore"),  # of rows that are masked
        ):
            stack.enter_context(patch)
        yield


@functools.cache
def _kernels() -> ModuleType:
    """A second copy of the kernels: whether they are compiled is settled when they are defined."""
    from triton import knobs

    file = Path(backend_triton.__file__).with_name("triton_kernels.py")
    spec = importlib.util.spec_from_file_location("eyetoy_mm.ops.interpreted_triton_kernels", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with knobs.runtime.scope():
        knobs.runtime.interpret = True
        spec.loader.exec_module(module)
    return module
