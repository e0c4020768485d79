"""Tell what this installation and machine can do, and the remedy for each thing that will go wrong.

Examples::

    eyetoy doctor
    eyetoy doctor --json > doctor.json        # what a bug report should contain

Exit code 1 where something will fail. A line with `!` is a problem, one with `?` may surprise.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from eyetoy_mm.cli.options import add_json, write_json
from eyetoy_mm.errors import counted

if TYPE_CHECKING:
    from eyetoy_mm.engine.doctor import Check

_ROOM, _BELOW = 30, " " * 6  # columns beside a name, and what is before lines below it
_MARKS = {"ok": " ", "note": "?", "problem": "!"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_json(parser, "everything")


def run(args: argparse.Namespace) -> None:
    """Look, print, and exit with 1 where there is a problem."""
    from eyetoy_mm.engine.doctor import examine_installation

    checks = examine_installation(Path.cwd())
    if args.json:
        write_json(args.json, [dataclasses.asdict(check) for check in checks])
    else:
        print("\n".join(_lines(checks, shutil.get_terminal_size((100, 24)).columns)))
    if any(check.state == "problem" for check in checks):
        sys.exit(1)


def _lines(checks: Iterable[Check], width: int) -> Iterator[str]:
    checks = list(checks)
    names = max(len(check.name) for check in checks)
    for section, members in groupby(checks, key=lambda check: check.section):
        yield section
        for check in members:
            yield from _wrapped(f"{_MARKS[check.state]} {check.name:{names}}  ", check.found, width)
            if check.remedy:
                yield from _wrapped(" " * (names + 4) + "-> ", check.remedy, width)
        yield ""
    problems, notes = (sum(check.state == state for check in checks) for state in ("problem", "note"))
    yield from textwrap.wrap(
        f"{counted(problems, 'problem')} (!), {counted(notes, 'note')} (?). A bug report should contain: "
        "`eyetoy doctor --json`, the command, the config (`eyetoy show-config CONFIG`), and the whole log with its "
        "traceback.",
        max(width, 40),
        break_on_hyphens=False,
    )


def _wrapped(lead: str, text: str, width: int) -> list[str]:
    """Lines behind a name, or below it where there is no room beside it; a path or a version stays in one piece."""
    wrap = partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
    if width < len(lead) + _ROOM:
        arrow = "-> " * lead.endswith("-> ")
        below = wrap(text, width, initial_indent=_BELOW + arrow, subsequent_indent=_BELOW)
        return below if arrow else [lead.rstrip(), *below]
    return wrap(text, width, initial_indent=lead, subsequent_indent=" " * len(lead))
