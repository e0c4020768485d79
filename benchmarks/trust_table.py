"""What a user reads where something is wrong: every case of benchmarks/trust, run, and its message.

Usage::

    python benchmarks/trust_table.py                          # print the table
    python benchmarks/trust_table.py det seg                  # of some files
    python benchmarks/trust_table.py --into docs/trust.md

Each case makes bad input in an empty folder and hands it to this package. The table has the message of what it raises,
or what it returns where the run goes on.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from eyetoy_mm.tables import markdown_table, write_into  # noqa: E402

SUBJECTS = {
    "seg": "Segmentation data",
    "det": "Detection data",
    "cls": "Classification data",
    "photos": "Photos and files",
    "weights": "Weights, and going on",
    "onerule": "Preprocessing",
    "configs": "Configs",
    "hostile": "Hostile files",
    "packs": "Tar files and packs",
    "longruns": "Long runs",
}


def row(name: str, case: object) -> tuple[str, str]:
    """A case and its message, without the folder that it ran in."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            message = str(case(Path(folder)))  # type: ignore[operator]
        except (Exception, SystemExit) as error:
            message = str(error)
        message = message.replace(str(Path(folder).resolve()), "FOLDER").replace(folder, "FOLDER")
    return _as_text(name), _as_text(" ".join(message.replace(str(ROOT), ".").split()))


def _as_text(words: str) -> str:
    """Words as Markdown shows them as they are: ``[1] [2]`` is no link, ``<x>`` no tag, ``|`` no end of a cell."""
    return re.sub(r"[|\[<*]", r"\\\g<0>", words)


def main() -> None:
    """Run the cases; print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="FILE", help="files of benchmarks/trust (default: all)")
    parser.add_argument("--into", type=Path, help="document that keeps a place for the tables")
    args = parser.parse_args()
    parts = []
    for name in args.subjects or SUBJECTS:
        cases = import_module(f"benchmarks.trust.{name}").CASES
        rows = [row(case, run) for case, run in cases.items()]
        parts.append(f"### {SUBJECTS[name]}: {len(rows)} cases\n\n" + markdown_table(["input", "message"], rows))
    text = "\n\n".join(parts)
    if args.into is None:
        print(text)
    else:
        write_into(args.into, "benchmarks/trust_table.py", text)


if __name__ == "__main__":
    main()
