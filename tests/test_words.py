"""Words that a stranger can follow, and what texts name is there: sections, equations, files."""

import re
import subprocess
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


def tracked():
    """Text files that git keeps, or all where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in done.stdout.split("\0") if name] or TEXTS
    return [file for file in files if file.suffix in (".py", ".md", ".h", ".cpp", ".toml", ".yml") and file.is_file()]


# The documents that the project began with have these names among its authors alone.
PRIVATE = re.compile(r"\bseed 00\d|\bthe\s+seeds\b|\bthe\s+proposal\b", re.IGNORECASE)


def test_no_text_refers_to_what_a_stranger_does_not_have():
    assert PRIVATE.search("as the\nseeds have it") and not PRIVATE.search("rpn_proposal, the seed of a draw, proposals")
    files = [file for file in tracked() if file not in (Path(__file__), ROOT / "CHANGELOG.md")]
    assert len(files) > 100
    assert {str(file): found[0] for file in files if (found := PRIVATE.search(file.read_text()))} == {}


# Files of the checkout that a text names; those of `configs/` may be a reader's own.
NAMED = re.compile(
    r"(?<![\w/.-])(?:benchmarks|docs|examples|studies|tests|tools|weights)/[\w./-]+\."
    r"(?:ipynb|jpg|json|md|png|py|safetensors|sh|svg|yml)\b"
)
ELSEWHERE = {
    "docs/page.md",  # of nobody, in an example
    "docs/paper_proposal.md",  # EyeToy's
    "examples/pytorch/object-detection/README.md",  # transformers'
    "tools/dataset_converters/ade20k2coco.py",  # mmdet's
}


def test_files_that_are_named_are_there():
    """On pages, in programs and their help, in configs; the changelog tells of former ones, tests make some up."""
    assert NAMED.findall("`tools/train.py`, x/docs/a.md, studies/b.py.") == ["tools/train.py", "studies/b.py"]
    files = [file for file in tracked() if "tests" not in file.parts and file.name != "CHANGELOG.md"]
    named = {(str(file.relative_to(ROOT)), name) for file in files for name in NAMED.findall(file.read_text())}
    assert len(named) > 100 and {name for _, name in named} >= ELSEWHERE
    assert {(file, name) for file, name in named if name not in ELSEWHERE and not (ROOT / name).exists()} == set()
