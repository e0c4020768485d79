"""What a model's training step returns, which is all logged: named where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CheckOutputsHook(Hook):
    """Refuse values of a training step that are no single numbers, by their name.

    mmengine logs whatever ``train_step`` returns, and ends at a text or a map in an ``AssertionError`` without words.
    """

    priority = "HIGHEST"  # before RuntimeInfoHook, which logs them

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Look at the values.

        Raises:
            UserError: One is no number, or they have no names.
        """
        if outputs is None:
            return
        if not isinstance(outputs, Mapping):
            raise UserError(
                f"train_step of {type(runner.model).__name__} returns {_shown(outputs)}: what is logged must be a dict "
                "of names and numbers, as parse_losses gives it"
            )
        for name, value in outputs.items():
            if not _is_number(value):
                raise UserError(
                    f"train_step of {type(runner.model).__name__} returns {name}={_shown(value)}: everything that it "
                    "returns is logged, as one number each. Return the mean of several, and leave texts and maps out"
                )


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    if isinstance(value, np.ndarray | np.generic):
        return value.size == 1 and value.dtype.kind in "biuf"
    return isinstance(value, int | float)


def _shown(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of {str(value.dtype).removeprefix('torch.')}, shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
