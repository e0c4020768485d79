"""Which back end runs a case: the first that can, of those that are allowed.

All are, in their own order, unless :func:`use_backend` or the environment variable ``EYETOY_BACKEND`` names some. The
first time that a back end is chosen for a kind of device, one line of the log (``logging.getLogger("eyetoy_mm")``,
level INFO) says so, and why none of those before it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Neighborhood

VARIABLE = "EYETOY_BACKEND"

_log = logging.getLogger("eyetoy_mm")
_told: set[tuple[str, str]] = set()

# Read when this is imported: a variable of the environment that is read in a call breaks the graphs of torch.compile.
# Not a context variable, whose value the threads of the backward pass do not see, where recomputed blocks run.
_requests = [tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())]
_allowed: tuple[str, ...] = _requests[-1]


class Backend(Protocol):
    """One way to compute neighborhood attention: a module, or any object, with these two functions."""

    def refusal(self, query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
        """Why it cannot run a case, or None if it can. The arguments are those of :meth:`attend`."""

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        neighborhood: Neighborhood,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Attend, as :func:`~eyetoy_mm.ops.neighborhood_attention` does, on arguments that it has checked.

        Args:
            query: ``(B, *spatial, heads, head_dim)``, with elements.
            key: The same shape, dtype and device: it has the heads of the query.
            value: ``(B, *spatial, heads, value_dim)``.
            neighborhood: Of the map ``spatial``.
            bias: ``(heads, 2 * kernel_size - 1 per axis)``, of any floating dtype, or None.
            scale: Factor on ``query @ key``.

        Returns:
            ``(B, *spatial, heads, value_dim)`` in the dtype of ``query``.
        """


@contextlib.contextmanager
def use_backend(*names: str) -> Iterator[None]:
    """Choose the back end of everything that runs within, such as a whole model.

    ::

        with use_backend("flex", "torch"):  # flex, and torch where that cannot run a case
            model(images)

    It holds for all threads of the process; of several at a time, the one that was entered last. A call that names a
    back end itself is not affected. The environment variable ``EYETOY_BACKEND=flex,torch`` does the same for a whole
    program.

    Args:
        names: Of :data:`eyetoy_mm.ops.BACKENDS`; none allows all of them again, in their own order.

    Raises:
        ValueError: No names; or an unknown one, when the first case is to be run.
        RuntimeError: None of them can run a case; the message has their reasons.
    """
    global _allowed
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"back ends are given by name, as in use_backend('flex', 'torch'), got {names}")
    _requests.append(names)
    _allowed = names
    try:
        yield
    finally:  # threads may leave in another order than they came
        del _requests[len(_requests) - 1 - _requests[::-1].index(names)]
        _allowed = _requests[-1]


def allowed(backends: Mapping[str, Backend]) -> tuple[str, ...]:
    """Names of the back ends that may run where a call names none, in their order; an unknown one may be among them."""
    return _allowed or tuple(backends)


def choose(
    backends: Mapping[str, Backend],
    name: str | None,
    query: Tensor,
    neighborhood: Neighborhood,
    bias: Tensor | None,
) -> Backend:
    """The back end of this name, or without one the first that can run the case.

    Raises:
        ValueError: An unknown name, here or among those that are allowed.
        RuntimeError: The one that is named, or all that are allowed, cannot run the case; the message has the reasons.
    """
    names = (name,) if name is not None else allowed(backends)
    for candidate in names:  # all of them: a wrong one behind those that can is a mistake too
        if candidate not in backends:
            raise ValueError(f"unknown back end {candidate!r}; choose one of {', '.join(backends)} or None")
    reasons: dict[str, str] = {}
    for candidate in names:
        reason = backends[candidate].refusal(query, neighborhood, bias)
        if reason is None:
            if name is None and not torch.compiler.is_compiling():
                _tell(candidate, query.device.type, reasons)
            return backends[candidate]
        reasons[candidate] = reason
    if len(reasons) == 1:
        ((only, reason),) = reasons.items()
        raise RuntimeError(f"back end {only!r} cannot run this neighborhood attention: {reason}")
    raise RuntimeError(f"none of the back ends can run this neighborhood attention: {_listed(reasons)}")


def _tell(name: str, device: str, reasons: Mapping[str, str]) -> None:
    """Log the choice once for a kind of device, with the reasons against those that come before it."""
    if (name, device) in _told or device == "meta":
        return
    _told.add((name, device))
    instead = f"; not {_listed(reasons)}" if reasons else ""
    _log.info("neighborhood attention on %s runs in back end %r%s", device, name, instead)


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
