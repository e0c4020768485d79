"""The notebook and the walk: their commands are the program's, and what they show is what was run."""

import argparse
import ast
import json
import os
import re
import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.scripts import site, walk
from eyetoy_mm.cli import VERBS, parse

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples/own_data.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def outputs(cell):
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def test_its_python_compiles_and_its_commands_are_the_programs():
    verbs = []
    for cell in CODE:
        lines = source(cell).splitlines()
        ast.parse("\n".join(line for line in lines if not line.startswith("!")))
        for line in lines:
            if line.startswith("!"):
                command = re.sub(r"\{short\}", "a=1", line[1:].partition(">")[0])
                command = re.sub(r"\{checkpoint\}", "best.pth", command)
                program, *arguments = shlex.split(re.sub(r"\{\w+\}", "x", command))
                assert program == "eyetoy"
                verbs.append(parse(arguments).verb)
    assert verbs == ["init", "check", "train", "infer"]


@pytest.mark.parametrize("verb", VERBS)
def test_commands_in_pages_and_help_are_the_programs(verb):
    """Their options are, and each has what it needs; configs and files in them are anybody's."""
    module = import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=verb)
    module.add_arguments(parser)
    texts = {verb: module.__doc__} | {page: (ROOT / page).read_text(encoding="utf-8") for page in site.pages()}
    for where, text in texts.items():
        for line in re.findall(rf"^(?:    |\$ )eyetoy {verb} +(.*)$", text, re.MULTILINE):
            words = shlex.split(line.partition(">")[0], comments=True)
            _, rest = parser.parse_known_args(words)  # ends the test with what is wrong
            assert not [word for word in rest if word.startswith("-")], f"{where}: eyetoy {verb} {line}"


def test_it_was_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    text = "".join(map(outputs, CODE))
    assert "Traceback" not in text and "coco/bbox_mAP" in text and "eyetoy export" in text
    assert not re.search(r"/(home|root|work|Users)/", text)
    assert NOTEBOOK.stat().st_size < 1_000_000


def test_the_walk_has_every_command_that_records_it_and_small_pictures():
    page = (ROOT / "docs/walk.md").read_text(encoding="utf-8")
    assert re.findall(r"^\$ (.+)$", page, re.MULTILINE) == [step.command for step in walk.STEPS]
    for step in walk.STEPS:
        assert parse(shlex.split(step.command)[1:]).verb == step.command.split()[1]
    pictures = re.findall(r"\]\((.+\.svg)\)", page)
    assert pictures == [f"walk-{step.picture}.svg" for step in walk.STEPS if step.picture]
    assert all((ROOT / "docs" / picture).stat().st_size <= 100_000 for picture in pictures)
    assert not re.search(r"/(home|root|work|Users)/|/tmp/", page)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None, reason="pip install nbclient ipykernel"
)
def test_it_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    programs = f"{Path(sys.executable).parent}{os.pathsep}"  # `eyetoy` is where this Python is
    monkeypatch.setenv("PATH", programs + os.environ["PATH"])
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("EPOCHS = 14", "EPOCHS = 3").replace("[:60]", "[:10]")
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": tmp_path}}).execute()
    assert (tmp_path / "found.jpg").is_file()
