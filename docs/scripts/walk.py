"""Walks through the program as a newcomer does, and records what the terminal shows.

Usage::

    python docs/scripts/walk.py           # writes docs/walk.md and the pictures docs/walk-*.svg; some minutes
    python docs/scripts/walk.py --list    # the commands alone

Every command is run, in an empty folder, on a terminal of 100 columns, and its output is kept as it is, but for the
names of folders. Needs `pip install pyte`.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COLUMNS, ROWS = 100, 50
_SHOWN = 70  # lines of a command in the page
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Step(NamedTuple):
    """A command of the walk.

    Attributes:
        title: What it is for.
        command: As a user types it.
        picture: Name of its screenshot, if it has one.
    """

    title: str
    command: str
    picture: str = ""


CHECKPOINT = "work_dirs/nuclei/epoch_24.pth"
STEPS = (
    Step("Is everything there?", "eyetoy doctor"),
    Step("What is in this folder?", "eyetoy init nuclei --val-share 0.2", "init"),
    Step("Is anything wrong with it?", "eyetoy check nuclei.py"),
    Step(
        "Train, here for a fraction of the time",
        "eyetoy train nuclei.py --cfg-options train_cfg.max_epochs=24 train_cfg.val_interval=12 "
        "default_hooks.checkpoint.interval=12",
        "train",
    ),
    Step("How good is it?", f"eyetoy test nuclei.py {CHECKPOINT} --report report"),
    Step("What does it see in a video?", f"eyetoy infer nuclei.py {CHECKPOINT} clip.mp4 --out seen --save-json"),
    Step("One file for other programs", f"eyetoy export nuclei.py {CHECKPOINT} --out nuclei.onnx", "export"),
)


def main() -> None:
    """Walk; write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the commands, and run nothing")
    if parser.parse_args().list:
        print("\n".join(step.command for step in STEPS))
        return
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder, "walk").resolve()
        prepare(here)
        for step in STEPS:
            print(f"$ {step.command}", flush=True)
            parts.append(recorded(step, here))
            (DOCS / "walk.md").write_text("\n\n".join([_INTRODUCTION, *parts]) + "\n", encoding="utf-8")


_INTRODUCTION = f"""# A walk through the program

From a folder of somebody's pictures to a file that other programs run: what a person types, and what the terminal of
{COLUMNS} columns shows, recorded on a machine of two cores by `python docs/scripts/walk.py`. The folder `nuclei`
has 48 images and a mask for each; `clip.mp4` shows eight others, one after the other. `pip install 'eyetoy-mm[lite]'`
came first; the training is cut short.

That came in 70 seconds: a new environment with Python 3.11, the wheel with `[lite]` and
`requirements/constraints.txt`, nothing in pip's cache, 5.3 GB on the disk, two quiet cores and an index nearby. The
first result, `eyetoy infer mask-rcnn_eyetoy-demo_nuclei image.png`, was there 6 seconds later, and `eyetoy demo
--short` had trained, evaluated and painted a model in another 33.

What `init` takes and what to do where it stops: [your own data](your-data.md). All verbs: [use](use.md)."""


def prepare(here: Path) -> None:
    """Make the folder of somebody: images with their masks, and a video."""
    import cv2

    sample = ROOT / "data/nuclei"
    for kind in ("images", "annotations"):
        target = here / "nuclei" / ("images" if kind == "images" else "masks")
        target.mkdir(parents=True)
        for path in sorted((sample / kind / "training").iterdir())[:48]:
            shutil.copy(path, target)
    frames = [cv2.imread(str(path)) for path in sorted((sample / "images/validation").iterdir())[:8]]
    video = cv2.VideoWriter(str(here / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 2, (256, 256))
    for frame in frames:
        video.write(cv2.resize(frame, (256, 256)))
    video.release()


def recorded(step: Step, here: Path) -> str:
    """Run a command; return its part of the page, and write its picture.

    Raises:
        RuntimeError: It failed.
    """
    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    begin = time.monotonic()
    code, lines = run(step.command, here)
    seconds = time.monotonic() - begin
    if code:
        raise RuntimeError(f"{step.command} ended with {code}:\n" + "\n".join(line.plain for line in lines))
    shown = [line.plain for line in lines]
    if len(shown) > _SHOWN:
        shown = [*shown[: _SHOWN // 2], f"... {len(shown) - _SHOWN} lines", *shown[-_SHOWN // 2 :]]
    part = f"## {step.title}\n\n"
    if step.picture:
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        for line in lines[-ROWS:]:
            console.print(line, no_wrap=True)
        picture = _FONTS.sub("", console.export_svg(title=step.command[:80], theme=MONOKAI))
        (DOCS / f"walk-{step.picture}.svg").write_text(picture, encoding="utf-8")
        part += f"![The terminal](walk-{step.picture}.svg)\n\n"
    return part + "```text\n$ " + "\n".join([step.command, *shown]) + f"\n```\n\n{seconds:.0f} seconds."


def run(command: str, here: Path) -> tuple[int, list]:
    """Run a command on a terminal.

    Returns:
        Its exit code, and the lines that it left there, as texts of rich.
    """
    import pyte

    program, *arguments = shlex.split(command)
    assert program == "eyetoy", command
    control, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    names = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "eyetoy_mm.cli", *arguments],
        cwd=here, env={**os.environ, **names}, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=100_000, ratio=0.5)
    stream = pyte.ByteStream(screen)
    while True:
        try:
            output = os.read(control, 1 << 16)
        except OSError:  # the last process has closed the terminal
            break
        if not output:
            break
        stream.feed(output)
    os.close(control)
    rows = [*screen.history.top, *(screen.buffer[row] for row in range(ROWS))]
    lines = _lines(rows, here)
    while lines and not lines[-1].plain:
        lines.pop()
    return process.wait(), lines


def _lines(rows: list[dict], here: Path) -> list:
    """Rows of the terminal, without folders of this machine, which may go over the end of a row."""
    from rich.text import Text

    lines: list[Text] = []
    goes_on = False
    for row in rows:
        if goes_on:
            lines[-1].append_text(_text(row))
        else:
            lines.append(_text(row))
        goes_on = row[COLUMNS - 1].data != " "
    pieces = []
    for text in lines:
        text.rstrip()
        text = _without_folders(text, here)
        pieces += text.divide(range(COLUMNS, len(text), COLUMNS))
    return pieces


def _text(row: dict):
    """A row of the terminal with its colours."""
    from rich.style import Style
    from rich.text import Text

    text = Text()
    for (color, bold), cells in groupby((row[column] for column in range(COLUMNS)), lambda cell: (cell.fg, cell.bold)):
        name = {"default": None, "brown": "yellow"}.get(color, color.replace("bright", "bright_"))
        name = f"#{name}" if name and re.fullmatch("[0-9a-f]{6}", name) else name
        text.append("".join(cell.data for cell in cells), Style(color=name, bold=bold))
    return text


def _without_folders(text, here: Path):
    from rich.text import Text

    for folder, name in (
        (str(here), "~/walk"),
        (sys.prefix, "~/.venv"),
        (sys.base_prefix, "~/python"),
        (str(ROOT), "~/eyetoy_mm"),
    ):
        while folder in text.plain:
            at = text.plain.index(folder)
            text = Text.assemble(text[:at], name, text[at + len(folder) :])
    return text


if __name__ == "__main__":
    main()
