"""What is found wrong in a data set: gathered, told in one message or one table."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log

from eyetoy_mm.errors import UserError, first_few


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one data set.

    Args:
        kind: Its name in tables, in a few words ("label out of range"). The same fault has the same name everywhere.
        message: What is wrong, with the offending value, and what to do; whole sentences without the paths.
        where: The files, images or annotations that have it, as a user finds them.
        count: How many have it, where ``where`` does not list all; ``len(where)`` when None.
        fatal: Whether training on it would be wrong. What is merely odd, or dropped by the pipeline, is not.
    """

    kind: str
    message: str
    where: tuple[str, ...] = ()
    count: int | None = None
    fatal: bool = True

    @property
    def total(self) -> int:
        """How many have it."""
        return len(self.where) if self.count is None else self.count

    def __str__(self) -> str:
        count = self.total
        listed = first_few(self.where) if self.where else ""
        rest = count - len(self.where)
        listed += f" and {rest} more" if self.where and rest > 0 and len(self.where) <= 5 else ""
        return f"{self.kind}: {self.message}" + (f" [{count}: {listed}]" if listed else "")


def refuse_fatal(findings: Iterable[Finding]) -> None:
    """Stop if a run on these data would be wrong.

    Raises:
        UserError: Every fatal finding, a line each.
    """
    fatal = [str(finding) for finding in findings if finding.fatal]
    if fatal:
        raise UserError("\n".join(fatal))


def tell(findings: Iterable[Finding]) -> None:
    """Log what is merely odd, a line each, and stop if a run on these data would be wrong.

    Raises:
        UserError: Every fatal finding, a line each.
    """
    findings = list(findings)
    for finding in findings:
        if not finding.fatal:
            print_log(str(finding), "current", logging.WARNING)
    refuse_fatal(findings)


def repeated(names: Iterable[Any]) -> list[Any]:
    """Those that are there more than once, in their order."""
    return [name for name, count in Counter(names).items() if count > 1]


def other_classes(trained: Sequence[str], names: Sequence[str], split: str) -> str | None:
    """What to say where a label of a dataset is another class than in the first one of training; None where none is."""
    label = next((label for label, (first, second) in enumerate(zip(trained, names)) if first != second), None)
    if label is None:
        return None
    first, second = f"label {label} is {trained[label]!r} in", f"and {names[label]!r} in"
    told = f"{first} training {second} {split}"
    if split == "train":
        told = f"{first} one of the datasets of training {second} another"
    return f"{told}: both need the same classes in the same order."


def listed_twice(names: Sequence[str], subject: str = "") -> Finding:
    """What to say of images that a list has more than once; ``subject`` is the list and a blank, where none is told."""
    message = f"{subject}lists {len(names)} images more than once: they count as often. Keep each once"
    return Finding("images listed twice", message, tuple(names), fatal=False)
