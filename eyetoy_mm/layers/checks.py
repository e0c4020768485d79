"""Checks of arguments; every message names the field and the value."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, also one of NumPy's; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_tuples(value: Any) -> Any:
    """Lists as tuples, and NumPy's integers as Python's, also inside."""
    if isinstance(value, list | tuple):
        return tuple(map(as_tuples, value))
    return int(value) if is_whole(value) else value


def whole(**values: Any) -> None:
    """Refuse what is not an integer, also inside of tuples and lists.

    Raises:
        ValueError: The first of them, by name.
    """
    for name, value in values.items():
        if not _all_whole(value):
            wanted = "whole numbers" if isinstance(value, tuple | list) else "a whole number"
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def true_or_false(**values: Any) -> None:
    """Refuse what is not a bool.

    Raises:
        ValueError: The first of them, by name.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def _all_whole(value: Any) -> bool:
    return all(map(_all_whole, value)) if isinstance(value, tuple | list) else is_whole(value)


def at_least(minimum: int, **values: int) -> None:
    """Refuse what is not an integer, and integers below ``minimum``.

    Raises:
        ValueError: The first of them, by name.
    """
    whole(**values)
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


def fraction(**values: float) -> None:
    """Refuse what is not a number, and rates outside ``[0, 1)``: at 1 nothing would be left.

    Raises:
        ValueError: The first of them, by name.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}")
