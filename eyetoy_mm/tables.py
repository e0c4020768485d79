"""Tables that programs make: of markdown, with their places in the documents that show them, and for a terminal."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from eyetoy_mm.errors import UserError


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells, one line for each row."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def for_terminal(text: str) -> str:
    """Text to print whose tables are laid out for a terminal, where standard output is one; else it is as it was.

    A table has columns there if it has room for them. If not, a paragraph for each row: its first cell, and below it
    the others, each behind the name of its column. Cells of a dash, which are empty, are left out of these.

    Args:
        text: Lines; those that begin with a bar are tables of :func:`markdown_table`.
    """
    if sys.stdout is None or not sys.stdout.isatty():  # None where it was closed
        return text
    width = shutil.get_terminal_size().columns
    parts = itertools.groupby(text.split("\n"), key=lambda line: line.startswith("| "))
    return "\n".join(
        line for of_table, lines in parts for line in (_laid_out(list(lines), width) if of_table else lines)
    )


def _laid_out(lines: list[str], width: int) -> list[str]:
    header, _, *rows = ([cell.strip().strip("`") for cell in line[2:-2].split(" | ")] for line in lines)
    if any(len(row) != len(header) for row in rows):  # a cell with a bar
        return lines
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        line_of_dashes = ["-" * column for column in widths]
        return [
            "  ".join(cell.ljust(column) for cell, column in zip(row, widths)).rstrip()
            for row in (header, line_of_dashes, *rows)
        ]
    paragraphs = []
    for first, *others in rows:
        told = "; ".join(f"{name} {cell}".strip() for name, cell in zip(header[1:], others) if cell not in ("", "-"))
        paragraphs += [first, *textwrap.wrap(told, width, initial_indent="    ", subsequent_indent="    ")]
    return paragraphs


def labelled(label: str, text: str) -> str:
    """A text as wide as the terminal, 118 columns at most, a word before its first line; its own lines stay lines."""
    width = max(20, min(118, shutil.get_terminal_size((118, 24)).columns) - 10)
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return "\n".join(f"{label if index == 0 else '':9s} {line}" for index, line in enumerate(lines or [""]))


def check_place(path: Path, program: str) -> None:
    """Check that :func:`write_into` finds its place: before the work, for what is written may take an hour to measure.

    Args:
        path: The document.
        program: As :func:`write_into` takes it.

    Raises:
        UserError: There is no such file or no such place in it.
    """
    _parts(path, program)


def write_into(path: Path, program: str, text: str) -> None:
    """Put text in the place that a document keeps for a program, between two comments with its name.

    Args:
        path: The document.
        program: Path of the program in the repository, as in ``<!-- tools/model_table.py: begin -->``.
        text: What goes there.

    Raises:
        UserError: There is no such file or no such place in it.
    """
    before, _, after = _parts(path, program)
    path.write_text(f"{before}\n\n{text}\n\n{after}", encoding="utf-8")


def write_rows_into(path: Path, program: str, table: str) -> None:
    """Put the rows of a table among those that a document has from a program, sorted; the others stay.

    Args:
        path: The document.
        program: As :func:`write_into` takes it.
        table: A table of :func:`markdown_table`. A row takes the place of the one with the same first cell.

    Raises:
        UserError: There is no such file, no such place in it, or another table there.
    """
    header, line, *new = table.splitlines()
    there = _parts(path, program)[1].split("\n")
    if there[:2] != [header, line]:
        raise UserError(f"{path} has no table of {program} with the columns {header}; write the whole of it first")
    rows = {row.split(" | ")[0]: row for row in (*there[2:], *new)}
    write_into(path, program, "\n".join((header, line, *(rows[first] for first in sorted(rows)))))


def _parts(path: Path, program: str) -> tuple[str, str, str]:
    """A document up to a program's place, what is there, and the rest, the comments with it."""
    begin, end = (f"<!-- {program}: {marker} -->" for marker in ("begin", "end"))
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = page.partition(begin)
    there, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} has no place for this; it must have the lines {begin} and {end}")
    return before + begin, there.strip(), end + after
