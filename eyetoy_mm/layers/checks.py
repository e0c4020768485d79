"""Checks of arguments; every message names the field and the value."""

from __future__ import annotations


def at_least(minimum: int, **values: int) -> None:
    """Refuse values below ``minimum``.

    Raises:
        ValueError: The first of them, by name.
    """
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


def fraction(**values: float) -> None:
    """Refuse rates outside ``[0, 1)``: at 1 nothing would be left.

    Raises:
        ValueError: The first of them, by name.
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value}")
