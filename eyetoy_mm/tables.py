"""Markdown tables that programs make, and their places in the documents that show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from eyetoy_mm.errors import UserError


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells, one line for each row."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def write_into(path: Path, program: str, text: str) -> None:
    """Put text in the place that a document keeps for a program, between two comments with its name.

    Args:
        path: The document.
        program: Path of the program in the repository, as in ``<!-- tools/model_table.py: begin -->``.
        text: What goes there.

    Raises:
        UserError: There is no such file or no such place in it.
    """
    begin, end = (f"<!-- {program}: {edge} -->" for edge in ("begin", "end"))
    page = path.read_text() if path.is_file() else ""
    before, marker, remainder = page.partition(begin)
    _, closed, after = remainder.partition(end)
    if not marker or not closed:
        raise UserError(f"{path} has no place for this; it must have the lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
