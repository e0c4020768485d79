"""What docstrings and pages refer to in docs/architecture.md is there; its sections and equations are numbered."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
sections = [int(number) for number in re.findall(r"^## (\d+) ", PAGE.read_text(), re.MULTILINE)]
equations = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", PAGE.read_text())]
FOLDERS = ("eyetoy_mm", "configs", "docs", "tools", "tests", "benchmarks")
FILES = sorted(chain(ROOT.glob("*.md"), *((ROOT / folder).rglob("*.[pmh]*") for folder in FOLDERS)))
TEXTS = [file for file in FILES if file.suffix in (".py", ".md", ".h") and file.is_file()]

# "docs/architecture.md, section 3", "(docs/architecture.md), equations 13 and 14"; line breaks do not matter.
REFERENCE = re.compile(r"architecture\.md\)?,\s+(section|equation)s?\s+(\d+)(?:(?:,| and| to)\s+(\d+))*")


def test_sections_and_equations_are_numbered_in_order():
    assert sections == list(range(1, len(sections) + 1))
    assert equations == list(range(1, len(equations) + 1))


def references(text):
    for found in REFERENCE.finditer(text):
        there = {"section": sections, "equation": equations}[found[1]]
        yield from ((found[0], int(number) in there) for number in re.findall(r"\d+", found[0]))


def test_references_are_found():
    text = "(docs/architecture.md, section 3), [x](docs/architecture.md), equations 2 and\n99, see architecture.md"
    assert [exists for _, exists in references(text)] == [True, True, False]


@pytest.mark.parametrize("file", [f for f in TEXTS if "architecture.md" in f.read_text()], ids=lambda f: f.name)
def test_references_lead_somewhere(file):
    if file != Path(__file__):
        missing = [text for text, exists in references(file.read_text()) if not exists]
        assert not missing, f"{file}: docs/architecture.md has no {missing}"
