"""Tensors that are made once for each case and kept, whatever surrounds the call that first asks for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Case = ParamSpec("Case")
Made = TypeVar("Made")


def cached_tensors(maxsize: int) -> Callable[[Callable[Case, Made]], Callable[Case, Made]]:
    """Decorate a function of hashable arguments that makes tensors, so that it makes each of them once.

    What is kept must serve every later call. So the function names device and dtype of all that it makes, and is run
    without inference mode, whose tensors cannot be saved for a backward pass. While a graph is traced, under a mode
    that makes tensors of its own kind (``FakeTensorMode``, ``make_fx``), or within a transform of :mod:`torch.func`,
    which wraps what is made in it, it is run anew and nothing is kept.

    Args:
        maxsize: Number of cases that are kept, those used last.
    """

    def decorate(make: Callable[Case, Made]) -> Callable[Case, Made]:
        @functools.lru_cache(maxsize)
        def kept(*case: Case.args, **named: Case.kwargs) -> Made:
            with torch.inference_mode(False):
                return make(*case, **named)

        @functools.wraps(make)
        def get(*case: Case.args, **named: Case.kwargs) -> Made:
            passing = (
                torch.compiler.is_compiling()
                or is_in_torch_dispatch_mode()
                or torch._C._are_functorch_transforms_active()
            )
            return (make if passing else kept)(*case, **named)  # type: ignore[arg-type]  # they are hashable

        get.cache_clear = kept.cache_clear  # type: ignore[attr-defined]
        return get

    return decorate
