"""Runs examples/own_data.ipynb from top to bottom in an empty folder, and keeps what it shows in it.

Usage::

    python docs/scripts/notebook.py       # about ten minutes on two cores; pip install nbclient ipykernel pyte

Commands of a notebook write to a terminal; what is kept is what that terminal shows at the end, without the names of
folders of this machine.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples/own_data.ipynb"
_COLUMNS, _LINES = 240, 100


def main() -> None:
    """Run it; write it."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder, "notebook").resolve()
        here.mkdir()
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(here)}}).execute()
        tidy(notebook, here)
    nbformat.write(notebook, NOTEBOOK)


def tidy(notebook: Any, here: Path) -> None:
    """Leave of each cell's output what its terminal shows at the end, and no name of this machine.

    Args:
        notebook: As nbformat has it; changed in place.
        here: The folder in which it ran.
    """
    import nbformat

    names = {str(here): "~/notebook", str(ROOT): "~/eyetoy_mm", sys.prefix: "~/.venv"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        streams = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        others = [output for output in cell.outputs if output.output_type != "stream"]
        shown = shown_at_the_end(streams)
        for folder, name in names.items():
            shown = shown.replace(folder, name)
        written = [nbformat.v4.new_output("stream", name="stdout", text=shown)] if shown else []
        cell.outputs = [*written, *others]
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}


def shown_at_the_end(output: str) -> str:
    """What a terminal shows of some output, its history included."""
    import pyte

    screen = pyte.HistoryScreen(_COLUMNS, _LINES, history=100_000, ratio=0.5)
    screen.set_mode(pyte.modes.LNM)
    pyte.Stream(screen).feed(output)
    rows = [*screen.history.top, *(screen.buffer[row] for row in range(_LINES))]
    lines = ["".join(row[column].data for column in range(_COLUMNS)).rstrip() for row in rows]
    return "\n".join(lines).rstrip() + "\n" if any(lines) else ""


if __name__ == "__main__":
    main()
