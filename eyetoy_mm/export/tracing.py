"""From a PyTorch module to a program of torch.export, in silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._library.fake_impl import FakeImplCtx
from torch.export import ExportedProgram


def trace(module: nn.Module, size: tuple[int, int], open_axes: Mapping[int, Any]) -> ExportedProgram:
    """Run torch.export; errors are PyTorch's own.

    Args:
        module: ``images (B, 3, H, W) -> tuple of tensors``, in evaluation mode.
        size: Height and width of the example.
        open_axes: Axes of the images that are open, each with its ``torch.export.Dim``; without axis 0 the batch is 1.
    """
    example = torch.rand(2 if 0 in open_axes else 1, 3, *size) * 255  # a batch of 1 would be taken for a constant
    with torch.no_grad(), quiet(), _nms_may_keep_none():
        return torch.export.export(module, (example,), dynamic_shapes=(dict(open_axes),), strict=False)


@contextmanager
def _nms_may_keep_none() -> Iterator[None]:
    """Undo what torchvision says of its ``nms``, that it keeps two boxes at least: programs would refuse fewer."""
    with mock.patch.object(FakeImplCtx, "create_unbacked_symint", FakeImplCtx.new_dynamic_size):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks on what they try, which read like errors; what fails is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(level)
